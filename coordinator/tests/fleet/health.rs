//! What is asked about a coordinator's health, by plain HTTP as probes do.

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::support::{Fleet, wait_for};

/// Status and body of the answer.
pub async fn ask(address: &str, question: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{question}\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

async fn checks(address: &str, path: &str) -> (u16, Value) {
    let (status, body) = ask(address, &format!("GET {path} HTTP/1.1\r\nAccept: application/json")).await;
    (status, serde_json::from_str(&body).unwrap())
}

/// Whether the check of this name passes; `None`: there is none.
fn passes(document: &Value, name: &str) -> Option<bool> {
    let checks = document["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).map(|check| check["passed"].as_bool().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn health_names_each_check_for_people_and_for_machines() {
    let mut fleet = Fleet::start_on_own_server().await;
    let (status, ready) = checks(&fleet.health, "/readyz").await;
    assert_eq!((status, &ready["passed"]), (200, &Value::Bool(true)), "{ready}");
    for name in ["catalog", "schema", "certificate", "draining"] {
        assert_eq!(passes(&ready, name), Some(true), "{name}: {ready}");
    }
    let (status, live) = checks(&fleet.health, "/livez").await;
    assert_eq!(status, 200);
    for name in ["scheduler", "dispatcher", "lease reaper", "ingester", "housekeeper", "certificate renewer"] {
        assert_eq!(passes(&live, name), Some(true), "{name}: {live}");
    }
    let (status, text) = ask(&fleet.health, "GET /readyz HTTP/1.1").await;
    assert!(status == 200 && text.contains("ok     catalog: answered in "), "{text}");
    assert_eq!(ask(&fleet.health, "GET / HTTP/1.1").await.0, 404);
    assert_eq!(ask(&fleet.health, "POST /readyz HTTP/1.1").await.0, 405);

    fleet.stop_database().await;
    let unready = || async {
        let (status, ready) = checks(&fleet.health, "/readyz").await;
        (status == 503).then_some(ready)
    };
    let ready = wait_for("the outage to show", unready).await;
    assert_eq!((passes(&ready, "catalog"), passes(&ready, "certificate")), (Some(false), Some(true)), "{ready}");
    assert_eq!(ask(&fleet.health, "GET /livez HTTP/1.1").await.0, 200, "an outage is no reason for a restart");
    fleet.start_database().await;
    let again = || async { (ask(&fleet.health, "GET /readyz HTTP/1.1").await.0 == 200).then_some(()) };
    wait_for("the coordinator to be ready again", again).await;
    fleet.stop().await;
}
