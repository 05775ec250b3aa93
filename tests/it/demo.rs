//! The first thing a newcomer runs: it needs nothing, and its score is true.

use crate::inspectord::{Running, arg, command, run};

#[test]
fn the_demo_needs_nothing_and_ends_with_its_score() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let arguments = ["demo", "--parts", "40", "--rate", "0", "--defect-rate", "0.25", "--store", arg(&store)];
    let demo = Running::start(command(&arguments));
    demo.wait_for_output("mosquitto_sub -h 127.0.0.1");
    let ended = demo.ended();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stdout.contains("parts inspected       40"), "{}", ended.stdout);
    assert!(
        ended.stdout.contains("Every verdict is on disk and acknowledged by the broker."),
        "{}",
        ended.stdout
    );

    let history = run(&["history", "--store", arg(&store), "--json", "--limit", "100"]);
    assert_eq!(history.stdout.lines().count(), 40, "{}", history.stderr);
    let kept =
        run(&["history", "--store", arg(&store), "--json", "--decision", "anomalous", "--limit", "100"]);
    let caught = ended.stdout.matches("caught: ").count();
    let false_alarms =
        ended.stdout.matches("false alarm").count() - ended.stdout.matches("false alarms ").count();
    assert_eq!(kept.stdout.lines().count(), caught + false_alarms, "{}", ended.stdout);
    assert!(caught >= 5, "the shipped model caught only {caught}:\n{}", ended.stdout);
}
