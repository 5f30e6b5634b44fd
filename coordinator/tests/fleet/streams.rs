//! Streams that last: whoever holds one open is judged again while it does.

use coord_archive::entry::{Entry, Kind};
use coord_shared::api::coordinator_message::Message as ToAgent;
use coord_shared::api::operator_service_client::OperatorServiceClient;
use coord_shared::api::{self, file_chunk};
use coord_shared::fault::{ErrorCode, Fault};
use coord_shared::tls::PeerKind;
use coordinator::catalog::{IndexProgress, Searchable};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::indexes::{Sender, block, entry};
use super::support::{DEADLINE, wait_for};

/// More entries than fit between a coordinator and an operator who does not read on.
const MANY: usize = 40_000;

fn many() -> Vec<Entry> {
    let name = "n".repeat(240);
    let files = (0..MANY).map(|number| entry(format!("etc/{number:06}{name}").as_bytes(), Kind::File));
    [entry(b"", Kind::Folder), entry(b"etc", Kind::Folder)].into_iter().chain(files).collect()
}

/// Why a stream ended, once it has.
async fn end<T>(stream: &mut Streaming<T>) -> Fault {
    loop {
        match tokio::time::timeout(DEADLINE, stream.message()).await.unwrap() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended well"),
            Err(status) => return Fault::from(&status),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_stream_outlives_the_certificate_it_was_opened_with() {
    let mut host = Sender::start().await;
    let mut operator = OperatorServiceClient::new(host.admin.clone());
    let listed = host.back_up().await;
    let id = host.backup(listed).await.host;
    host.fleet.catalog.index_intake(listed, id).await.unwrap().unwrap().store_block(0, &many()).await.unwrap();
    let searchable = || async { (host.backup(listed).await.searchable == Searchable::Searchable).then_some(()) };
    wait_for("the entries", searchable).await;

    // A file on its way from host to operator, of which the host has sent the beginning.
    let path = many()[2].path.clone();
    let asked = api::ReadFileRequest { host: "one".into(), path, ..Default::default() };
    let mut file = operator.read_file(asked).await.unwrap().into_inner();
    let wanted = |message| if let ToAgent::ReadFile(order) = message { Some(order) } else { None };
    let request_id = host.agent.wait(wanted).await.request_id;
    let (chunks, sent) = mpsc::channel(4);
    let part = Some(file_chunk::Part::Data(b"beginning".to_vec()));
    chunks.send(api::FileChunk { request_id, part }).await.unwrap();
    let mut client = host.client.clone();
    let sending = tokio::spawn(async move { client.send_file(ReceiverStream::new(sent)).await });
    assert!(file.message().await.unwrap().is_some());
    // A listing of which the operator has read the beginning.
    let asked = api::ListFilesRequest { host: "one".into(), path: b"etc".to_vec(), ..Default::default() };
    let mut listing = operator.list_files(asked).await.unwrap().into_inner();
    assert!(listing.message().await.unwrap().is_some());
    // An index of which half has arrived.
    let halved = host.back_up_in(2).await;
    let (blocks, sent) = mpsc::channel(4);
    let (stored, codec) = (block(&[entry(b"", Kind::Folder)]), api::Codec::Zstd.into());
    let first = api::IndexBlock { backup_id: halved.to_string(), number: 0, stored, codec, last: false };
    blocks.send(first).await.unwrap();
    let mut client = host.client.clone();
    let uploading = tokio::spawn(async move { client.upload_index(ReceiverStream::new(sent)).await });
    let half = || async {
        let progress = host.fleet.catalog.index_progress(halved, id).await.unwrap();
        (progress == IndexProgress { next_block: 1, complete: false }).then_some(())
    };
    wait_for("half of an index", half).await;
    // The database keeps the listing waiting.
    let (mut client, connection) = tokio_postgres::connect(&host.fleet.url, tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let busy = client.transaction().await.unwrap();
    busy.batch_execute("LOCK TABLE file_versions").await.unwrap();

    host.fleet.catalog.revoke_certificates(PeerKind::Operator, "admin").await.unwrap();
    let (file, listing) = tokio::join!(end(&mut file), end(&mut listing));
    assert_eq!((file.code, listing.code), (ErrorCode::Revoked, ErrorCode::Revoked));
    host.fleet.catalog.revoke_certificates(PeerKind::Agent, &host.member.subject).await.unwrap();
    let ended = tokio::time::timeout(DEADLINE, async { tokio::join!(sending, uploading) }).await;
    let (sending, uploading) = ended.unwrap();
    assert_eq!(Fault::from(&sending.unwrap().unwrap_err()).code, ErrorCode::Revoked);
    assert_eq!(Fault::from(&uploading.unwrap().unwrap_err()).code, ErrorCode::Revoked);
    drop((chunks, blocks));
    busy.commit().await.unwrap();
    drop(client);
    connection.await.unwrap().unwrap();
    host.fleet.stop().await;
}
