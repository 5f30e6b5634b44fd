//! Makes and sends the orders of attempts that were claimed. Apart from the dispatcher, because an order takes many looks at the catalog
//! and a claim few: what is due is leased at once, and ordered in turn.

use std::sync::Arc;
use std::time::Duration;

use coord_shared::lifecycle::Lifecycle;

use super::{Pass, Rhythm};
use crate::app::{App, dispatch};

/// Every claim wakes it; this is for none.
const EVERY: Duration = Duration::from_secs(2);

/// Starts the reconciler.
pub fn start(app: &Arc<App>, life: &Lifecycle) {
    let rhythm = Rhythm::new("order giver", EVERY).nudged_by(&app.unordered.arrived).until_the_end();
    let owned = Arc::clone(app);
    super::start(app, life, rhythm, move || {
        let app = Arc::clone(&owned);
        async move { dispatch::give_orders(&app).await.map(|more| if more { Pass::More } else { Pass::Settled }) }
    });
}
