//! `coordctl run logs`: what happened to a run, step by step.

use std::time::Duration;

use coord_shared::api::{self, ListRunEventsRequest};

use crate::client::{answer, request};
use crate::failure::Failure;
use crate::output::Format;
use crate::output::document::Fields;
use crate::session::Session;
use crate::{json, shown, wait};

/// How often a followed run is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Prints the events of a run; followed, until the run has ended.
pub async fn run(session: &mut Session, run: &str, follow: bool) -> Result<(), Failure> {
    let by_row = session.out.format == Format::Jsonl && session.out.fields != Some(Fields::Names);
    let as_it_comes = by_row || !session.out.is_json();
    let (mut told, mut id) = (0, run.to_owned());
    loop {
        let found = answer(session.client.list_run_events(request(ListRunEventsRequest { run: id.clone() })).await)?;
        let run = found.run.clone().unwrap_or_default();
        id.clone_from(&run.id);
        if as_it_comes {
            for event in found.events.iter().skip(told) {
                if by_row {
                    session.out.row(&json::run_event(event))?;
                } else {
                    session.out.print(&format!("{}\n", line(event)))?;
                }
            }
        }
        told = told.max(found.events.len());
        if !follow || wait::has_ended(&run) {
            if told == 0 {
                session.out.talk("no events: the run is older than their record");
            }
            return if as_it_comes { Ok(()) } else { session.out.json(&json::run_events(&found)) };
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn line(event: &api::RunEvent) -> String {
    let attempt = if event.attempt == 0 { String::new() } else { format!("attempt {}  ", event.attempt) };
    let text = match event.kind.as_str() {
        "phase" => shown::safe(&event.detail),
        "not_searchable" => format!("not searchable: {}", shown::safe(&event.detail)),
        "warnings" => format!("{} warnings", shown::safe(&event.detail)),
        kind if event.detail.is_empty() => shown::safe(kind),
        kind => format!("{}: {}", shown::safe(kind), shown::safe(&event.detail)),
    };
    format!("{}  {attempt}{text}", shown::instant(event.at_us))
}

#[cfg(test)]
mod tests {
    use super::line;
    use coord_shared::api::RunEvent;

    #[test]
    fn an_event_is_a_line_with_its_time() {
        let event = |kind: &str, detail: &str, attempt| RunEvent {
            kind: kind.into(),
            detail: detail.into(),
            attempt,
            ..RunEvent::default()
        };
        assert_eq!(line(&event("queued", "asked for by ada", 0)), "-  queued: asked for by ada");
        assert_eq!(line(&event("phase", "packing", 1)), "-  attempt 1  packing");
        assert_eq!(line(&event("verifying", "", 2)), "-  attempt 2  verifying");
    }
}
