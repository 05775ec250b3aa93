//! Seen from outside: metrics, health, page and evidence of a real daemon, and what they say when something is wrong.

use std::fs;
use std::net::TcpStream;

use inspectord::imaging;

use crate::daemon::Floor;
use crate::http::Page;
use crate::inspectord::Running;
use crate::subscriber::eventually;

const SERVE: [&str; 4] = ["--set", "web.enabled=true", "--set", "web.address=127.0.0.1:0"];

fn start(floor: &Floor) -> (Running, Page) {
    let daemon = floor.start(&SERVE);
    let page = Page::of(&daemon);
    (daemon, page)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_at_work_tells_what_it_does() {
    let floor = Floor::new().await;
    floor.drop_pictures(0, 5);
    floor.watch("threshold = -1000.0");
    let (daemon, page) = start(&floor);
    eventually("the box is ready", || page.get("/readyz").status == 200).await;
    let anomalous = "inspectord_verdicts_total{camera=\"top\",decision=\"anomalous\",reason=\"\"}";
    eventually("five verdicts are counted", || page.metric(anomalous) == Some(5.0)).await;
    eventually("five are published", || page.metric("inspectord_outbox_verdicts") == Some(0.0)).await;
    assert_eq!(page.get("/healthz").status, 200);
    for stage in ["prepare", "infer", "total", "record"] {
        let sample = format!("inspectord_stage_seconds_count{{camera=\"top\",stage=\"{stage}\"}}");
        eventually(&sample, || page.metric(&sample) == Some(5.0)).await;
    }
    assert_eq!(page.metric("inspectord_broker_up"), Some(1.0));

    eventually("the page shows the alarms", || {
        page.get("/api/state").json()["alarms"].as_array().unwrap().len() == 5
    })
    .await;
    let state = page.get("/api/state").json();
    assert_eq!((&state["box"], &state["broker"]["state"]), (&"floor".into(), &"up".into()));
    assert_eq!(state["cameras"][0]["last"]["decision"], "anomalous");
    let verdicts = page.get("/api/verdicts?camera=top&limit=2").json();
    let sequences: Vec<_> = verdicts.as_array().unwrap().iter().map(|v| v["sequence"].clone()).collect();
    assert_eq!(sequences, [5, 4]);

    let name = verdicts[0]["source"]["name"].as_str().unwrap();
    let original = fs::read(floor.path("in").join(name)).unwrap();
    assert_eq!(page.get("/evidence/top/5/picture").body, original);
    for path in ["/evidence/top/5/heatmap", "/evidence/top/5/picture/small", "/evidence/top/5/heatmap/small"]
    {
        let answer = page.get(path);
        assert!(answer.head.contains("image/png"), "{}", answer.head);
        imaging::decode_bytes(&answer.body).unwrap();
    }
    let html = page.get("/").text();
    assert!(html.contains("/page.js") && !html.contains("//cdn"), "{html}");
    daemon.stops();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_named_and_inspection_goes_on() {
    let mut floor = Floor::new().await;
    floor.watch("");
    let away = floor.path("away");
    let (daemon, page) = start(&floor);
    eventually("the box is ready", || page.get("/readyz").status == 200).await;
    fs::rename(floor.path("in"), &away).unwrap();
    floor.broker.kill();
    eventually("camera and broker are missed", || {
        let ready = page.get("/readyz");
        ready.status == 503 && ready.text().contains("camera top: ") && ready.text().contains("broker: ")
    })
    .await;
    assert_eq!(page.metric("inspectord_ready"), Some(0.0));
    assert_eq!(page.get("/healthz").status, 200, "a missing camera is no reason for a restart");
    fs::rename(&away, floor.path("in")).unwrap();
    floor.drop_pictures(0, 3);
    eventually("verdicts wait for the broker", || page.metric("inspectord_outbox_verdicts") == Some(3.0))
        .await;
    assert!(page.metric("inspectord_outbox_oldest_age_seconds").unwrap() >= 0.0);
    floor.broker.run().await;
    eventually("all is well again", || {
        page.get("/readyz").status == 200 && page.metric("inspectord_outbox_verdicts") == Some(0.0)
    })
    .await;
    daemon.stops();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_gets_nothing_but_what_is_meant_to_be_read() {
    let floor = Floor::new().await;
    floor.watch("");
    let (daemon, page) = start(&floor);
    fs::write(floor.path("store").join("secret"), "x").unwrap();
    for path in [
        "/evidence/../secret",
        "/evidence/top/1/picture",
        "/evidence/%2e%2e/1/picture",
        "/../../../../etc/passwd",
        "//etc/passwd",
        "/store",
    ] {
        assert_eq!(page.get(path).status, 404, "{path}");
    }
    assert_eq!(page.get("/api/verdicts?limit=1000000").status, 400);
    let close = "Connection: close\r\n\r\n";
    assert_eq!(page.say(&format!("POST / HTTP/1.1\r\nHost: localhost\r\n{close}")).status, 405);
    let rebound = page.say(&format!("GET /api/state HTTP/1.1\r\nHost: evil.example\r\n{close}"));
    assert_eq!(rebound.status, 421, "another name may lead a browser here");
    let endless = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n{close}", "x".repeat(100_000));
    assert!(matches!(page.say(&endless).status, 0 | 400 | 431));
    // More idle connections than are taken at once: others wait, the daemon does not.
    let idle: Vec<TcpStream> = (0..100).map(|_| page.connect()).collect();
    let subscriber = floor.subscribe().await;
    floor.drop_pictures(0, 1);
    subscriber.wait_for("/verdict", 1).await;
    drop(idle);
    assert_eq!(page.get("/healthz").status, 200);
    daemon.stops();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_taken_does_not_keep_the_box_from_inspecting() {
    let floor = Floor::new().await;
    floor.drop_pictures(0, 2);
    floor.replay("");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("web.address={}", taken.local_addr().unwrap());
    let ended = floor.start(&["--set", "web.enabled=true", "--set", &address, "--until-end"]).ended();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("the page cannot be served here"), "{}", ended.stderr);
}
