use super::*;
use crate::schema::builtin;
use serde_json::json;

fn kind(group: &str, version: &str, kind: &str) -> &'static Schema {
    builtin().kind_of(group, version, kind).expect("a built-in kind")
}

/// What becomes of a document of an apps/v1 Deployment.
#[track_caller]
fn deployment(text: &str, expect: Result<(Value, &[&str], &[&str]), &str>) {
    let got = decode(text.as_bytes(), kind("apps", "v1", "Deployment"));
    match (got, expect) {
        (Ok(d), Ok((value, unknown, duplicates))) => {
            assert_eq!(d.value, value);
            let of =
                |what: &str| d.faults.iter().filter(|f| f.starts_with(what)).cloned().collect::<Vec<_>>();
            assert_eq!(of("unknown"), unknown);
            assert_eq!(of("duplicate"), duplicates);
        }
        (Err(e), Err(message)) => assert_eq!(e.to_string(), message),
        (got, expect) => panic!("{got:?}, not {expect:?}"),
    }
}

#[test]
fn keeps_what_is_known() {
    let whole = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a","labels":{"x":"y"}},"spec":{"replicas":0}}"#;
    deployment(whole, Ok((serde_json::from_str(whole).unwrap(), &[], &[])));
}

#[test]
fn drops_and_names_what_is_not() {
    deployment(
        r#"{"spec":{"foo":1,"template":{"spec":{"containers":[{"name":"c","foo":{}},{"Name":"d"}]}},"replicas":1,"replicas":2},
            "metadata":{"labels":{"a":"b","a":"c"}},"Kind":"x"}"#,
        Ok((
            json!({"spec": {"replicas": 2, "template": {"spec": {"containers": [{"name": "c"}, {}]}}}, "metadata": {"labels": {"a": "c"}}}),
            &[
                r#"unknown field "spec.foo""#,
                r#"unknown field "spec.template.spec.containers[0].foo""#,
                r#"unknown field "spec.template.spec.containers[1].Name""#,
                r#"unknown field "Kind""#,
            ],
            &[r#"duplicate field "spec.replicas""#, r#"duplicate field "metadata.labels.a""#],
        )),
    );
}

#[test]
fn nulls_are_gos() {
    deployment(
        r#"{"metadata":{"creationTimestamp":null,"labels":{"a":null},"finalizers":[null]},"spec":{"template":{"spec":{"containers":[null]}}}}"#,
        Ok((
            json!({"metadata": {"labels": {"a": ""}, "finalizers": [""]}, "spec": {"template": {"spec": {"containers": [{}]}}}}),
            &[],
            &[],
        )),
    );
}

#[test]
fn type_errors_are_gos() {
    for (text, message) in [
        (
            r#"{"spec":{"replicas":"3"}}"#,
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"spec":{"replicas":1.5}}"#,
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"spec":{"replicas":3000000000}}"#,
            "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"spec":[]}"#,
            "json: cannot unmarshal array into Go struct field Deployment.spec of type v1.DeploymentSpec",
        ),
        (
            r#"{"metadata":{"labels":{"a":1}}}"#,
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            r#"{"spec":{"template":{"spec":{"containers":[{"image":{}}]}}}}"#,
            "json: cannot unmarshal object into Go struct field Container.spec.template.spec.containers.image of type string",
        ),
        (
            r#"{"spec":{"template":{"spec":{"containers":{}}}}}"#,
            "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
        ),
        (r#""x""#, "json: cannot unmarshal string into Go value of type v1.Deployment"),
        (r#"{"spec":"#, "unexpected end of JSON input"),
        (
            r#"{"metadata":{"creationTimestamp":"yesterday"}}"#,
            "parsing time \"yesterday\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"yesterday\" as \"2006\"",
        ),
    ] {
        deployment(text, Err(message));
    }
}

#[test]
fn what_is_no_json_is_refused() {
    let any = crate::schema::any();
    assert!(decode(b"{} {}", &any).unwrap_err().to_string().contains("after top-level value"));
    assert!(decode(b"{\"a\":\"\xff\"}", &any).unwrap_err().to_string().contains("invalid UTF-8"));
    assert_eq!(decode("[".repeat(100_000).as_bytes(), &any).unwrap_err(), DecodeError::TooDeep);
    assert_eq!(
        decode_any(b"[1,18446744073709551615,1.0,null]").unwrap(),
        json!([1, 18446744073709551615f64, 1.0, null])
    );
}

#[test]
fn scalars_take_their_canonical_form() {
    for (schema, from, to) in [
        ("Time", "2026-01-02T03:04:05.678+02:00", "2026-01-02T01:04:05Z"),
        ("Time", "2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
        ("MicroTime", "2026-01-02T03:04:05.123456Z", "2026-01-02T03:04:05.123456Z"),
        ("MicroTime", "2026-01-02T05:04:05.000000+02:00", "2026-01-02T03:04:05.000000Z"),
    ] {
        let s = builtin().definition(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{schema}")).unwrap();
        assert_eq!(check(json!(from), s).unwrap().value, json!(to));
    }
    let micro = builtin().definition("io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime").unwrap();
    for text in ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.123Z", "2026-01-02T03:04:05.123456789Z"] {
        assert!(check(json!(text), micro).is_err(), "{text}");
    }
    let secret = kind("", "v1", "Secret");
    assert_eq!(
        check(json!({"data": {"a": "YQ=\n="}}), secret).unwrap().value,
        json!({"data": {"a": "YQ=="}})
    );
    let e = check(json!({"data": {"a": "Y!=="}}), secret).unwrap_err();
    assert_eq!(e.to_string(), "illegal base64 data at input byte 1");
}

#[test]
fn quantities_take_their_canonical_form() {
    let schema = builtin().definition("io.k8s.apimachinery.pkg.api.resource.Quantity").unwrap();
    for (from, to) in [
        (json!("1000m"), "1"),
        (json!(2), "2"),
        (json!(0.5), "500m"),
        (json!("1.5Gi"), "1536Mi"),
        (json!("1024Mi"), "1Gi"),
        (json!("100000"), "100k"),
        (json!("1e3"), "1e3"),
        (json!("1E3"), "1e3"),
        (json!("1000e0"), "1e3"),
        (json!("0.1n"), "1n"),
        (json!("-5"), "-5"),
        (json!("+5"), "5"),
        (json!("0Ki"), "0"),
        (json!("512Ki"), "512Ki"),
        (json!(".5"), "500m"),
        (json!("5."), "5"),
        (json!("0.5Ki"), "512"),
        (json!("1.0001Ki"), "1024102400u"),
        (json!("1e100"), "9223372036854775807"),
        (json!("10E"), "9223372036854775807"),
        (json!("007"), "7"),
        (json!("100m"), "100m"),
        (json!("128Mi"), "128Mi"),
    ] {
        assert_eq!(check(from.clone(), schema).unwrap().value, json!(to), "{from}");
    }
    for bad in ["", "m", "1..2", ".", "1Zi", "1 Gi", "a", "1e", "--1"] {
        assert!(check(json!(bad), schema).is_err(), "{bad}");
    }
}

#[test]
fn custom_resources_keep_what_validation_will_judge() {
    let source = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "n": {"type": "integer", "default": 1}, "s": {"type": "string"}, "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}});
    let s = Schema::custom("example.com", "v1", "Thing", Some(&source), false).unwrap();
    let d = check(
        json!({"spec": {"n": null, "s": 5, "foo": 1, "free": {"a": [null]}}, "metadata": {"nme": "x"}}),
        &s,
    )
    .unwrap();
    assert_eq!(d.faults, [r#"unknown field "metadata.nme""#, r#"unknown field "spec.foo""#]);
    let mut value = d.value;
    assert_eq!(value, json!({"spec": {"n": null, "s": 5, "free": {"a": [null]}}, "metadata": {}}));
    default(&mut value, &s);
    assert_eq!(value["spec"]["n"], 1);
}

#[test]
fn defaults_go_where_something_is() {
    let pod = kind("", "v1", "Pod");
    let mut v = json!({"spec": {"containers": [{"ports": [{"containerPort": 1}], "livenessProbe": {"grpc": {"port": 1}},
        "env": [{"valueFrom": {"configMapKeyRef": {"key": "k"}}}]}]}});
    default(&mut v, pod);
    let c = &v["spec"]["containers"][0];
    assert_eq!(c["ports"][0], json!({"containerPort": 1, "protocol": "TCP"}));
    assert_eq!(c["livenessProbe"]["grpc"], json!({"port": 1, "service": ""}));
    assert_eq!(c["env"][0]["valueFrom"]["configMapKeyRef"], json!({"key": "k"}));
}

#[test]
fn type_meta_is_peeked() {
    let both = TypeMeta { api_version: "v1".into(), kind: "Pod".into() };
    assert_eq!(type_meta(br#"{"kind":"Pod","x":{"kind":"y"},"apiVersion":"v1", !"#).unwrap(), both);
    assert_eq!(type_meta(br#"{"spec":{}}"#).unwrap(), TypeMeta::default());
    assert!(type_meta(b"[]").is_err());
    assert!(type_meta(br#"{"a":"#).is_err());
}

#[test]
fn numbers_are_read_as_they_are_written() {
    for text in ["555555555555555555555555555555555555555555", "-0.1", "1.2222222222222223e70"] {
        let value = decode_any(text.as_bytes()).unwrap();
        assert_eq!(decode_any(value.to_string().as_bytes()).unwrap(), value);
        assert_eq!(value.as_f64(), text.parse().ok());
    }
}
