//! What only a real cluster shows: pods in containers, on the two hosts that `hack/test` makes with the scripts of a user.
//! Run by themselves: `hack/up node2`, then `hack/test cluster [WORD...]` runs the cases whose names have one of the words.
//!
//! A case is a function that gets a namespace of its own and says what went wrong. Those that harm nobody run side by side;
//! those that kill, restart or take away come one after the other behind them.

mod attacks;
mod churn;
mod disruption;
mod machines;
mod pods;
mod services;
mod streams;
mod volumes;
mod workloads;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use world::{Space, World};

/// Its name, and what it does; an error is a text for the reader.
pub type Case = (&'static str, fn(&Space) -> Result<(), String>);

/// How many run at a time.
const SIDE_BY_SIDE: usize = 4;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let wanted = |case: &Case| words.is_empty() || words.iter().any(|w| case.0.contains(w.as_str()));
    let pick = |lists: &[&[Case]]| -> Vec<Case> {
        lists.iter().flat_map(|l| l.iter()).filter(|c| wanted(c)).copied().collect()
    };
    let together = pick(&[
        pods::CASES,
        volumes::CASES,
        streams::CASES,
        services::CASES,
        workloads::CASES,
        attacks::CASES,
    ]);
    let alone = pick(&[workloads::ALONE, churn::ALONE, disruption::ALONE, machines::ALONE]);
    let world = match World::find() {
        Ok(world) => world,
        Err(e) => {
            eprintln!("no cluster to test: {e}");
            std::process::exit(1);
        }
    };
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                while let Some(case) = together.get(next.fetch_add(1, Ordering::Relaxed)) {
                    run(&world, case, &failed);
                }
            });
        }
    });
    for case in &alone {
        run(&world, case, &failed);
    }
    // A case that failed runs once more, alone: one that then passes is said to be shaky, one that does not has failed.
    let first = std::mem::take(&mut *failed.lock().unwrap_or_else(|e| e.into_inner()));
    for case in together.iter().chain(&alone).filter(|c| first.contains(&c.0)) {
        println!("shaky: {} is run once more", case.0);
        run(&world, case, &failed);
    }
    let failed = failed.into_inner().unwrap_or_else(|e| e.into_inner());
    for name in &failed {
        println!("failed: {name}");
    }
    println!("{} passed, {} failed", together.len() + alone.len() - failed.len(), failed.len());
    std::process::exit(i32::from(!failed.is_empty()));
}

fn run(world: &World, case: &Case, failed: &Mutex<Vec<&'static str>>) {
    let began = Instant::now();
    let result = Space::new(world, case.0).and_then(|space| {
        let result = case.1(&space);
        if let Err(e) = &result {
            // What it looked like then, before the namespace goes.
            eprintln!("--- {}: {e}\n{}", case.0, space.describe());
        }
        space.end();
        result
    });
    let seconds = began.elapsed().as_secs_f32();
    match result {
        Ok(()) => println!("test {} ... ok ({seconds:.1} s)", case.0),
        Err(e) => {
            println!("test {} ... FAILED ({seconds:.1} s): {e}", case.0);
            failed.lock().unwrap_or_else(|e| e.into_inner()).push(case.0);
        }
    }
}
