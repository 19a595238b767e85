//! ServiceCIDR: a range of services' addresses.

use crate::addresses::{Range, range};
use crate::check::IMMUTABLE;
use crate::kind::age_column;
use crate::{Column, Kind};
use api::field::{FieldErrors, FieldPath};
use k8s_openapi::api::networking::v1::ServiceCIDR;

const SPEC: FieldPath<'static> = FieldPath::root("spec");

/// The rules of ServiceCIDR.
pub static KIND: Kind<ServiceCIDR> = Kind {
    has_status: true,
    validate,
    validate_update: |new, old, errors| {
        let (at, new_list, old_list) = (SPEC.child("cidrs"), cidrs(new), cidrs(old));
        if new_list.len() == old_list.len() {
            for (i, (new, _)) in new_list.iter().zip(old_list).enumerate().filter(|(_, (n, o))| n != o) {
                errors.invalid(at.index(i), new, IMMUTABLE);
            }
        } else if let ([before], [first, _]) = (old_list, new_list) {
            if first != before {
                errors.invalid(at.index(0), first, IMMUTABLE);
            }
            validate(new, errors);
        } else {
            errors.invalid(at, &new_list, IMMUTABLE);
        }
    },
    columns: &[
        Column::text("CIDRs", "The ranges.", |c: &ServiceCIDR, _| cidrs(c).join(",").into()),
        age_column(),
    ],
    ..Kind::cluster("servicecidr", "servicecidrs")
};

fn cidrs(c: &ServiceCIDR) -> &[String] {
    c.spec.as_ref().and_then(|s| s.cidrs.as_deref()).unwrap_or_default()
}

fn validate(c: &ServiceCIDR, errors: &mut FieldErrors) {
    let (at, list) = (SPEC.child("cidrs"), cidrs(c));
    match list.len() {
        0 => return errors.required(at, "at least one CIDR required"),
        1 | 2 => {}
        _ => return errors.invalid(at, &c.spec, "may only hold up to 2 values"),
    }
    for (i, text) in list.iter().enumerate() {
        range(text, true, at.index(i), errors);
    }
    if let [Some(one), Some(other)] = list.iter().map(|t| Range::parse(t)).collect::<Vec<_>>()[..]
        && one.is_v4() == other.is_v4()
    {
        let why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.invalid(at, &list, why);
    }
}
