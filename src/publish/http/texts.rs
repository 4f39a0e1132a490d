//! Keeps the newest text with all figures, so that scrapers that ask at the same time share it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::compression::Compression;
use super::exposition::{self, Figures};
use super::format::Format;
use crate::publish::figures::collectors::Choice;

/// How long a text is kept. The collectors return the same figures for this time.
pub(super) const KEPT: Duration = Duration::from_secs(1);

/// The newest text with all figures, for each format and compression that a scraper has asked for.
#[derive(Default)]
pub(super) struct Texts(Mutex<HashMap<(Format, Compression), Text>>);

struct Text {
    at: Instant,
    /// The figures in the text.
    figures: Figures,
    text: Bytes,
}

impl Texts {
    /// Returns the figures as text. Writes the text if it is not stored. A text with chosen collectors is not stored.
    ///
    /// # Errors
    /// Fails if an encoder or a compressor fails. This is not expected, because they write to memory.
    pub(super) fn text(
        &self,
        figures: Figures,
        format: Format,
        compression: Compression,
    ) -> anyhow::Result<Bytes> {
        let mut stored = self.stored();
        let same = stored.get(&(format, compression));
        if let Some(same) = same.filter(|stored| stored.figures.are(&figures)) {
            return Ok(same.text.clone());
        }
        let text = exposition::write(&figures, format);
        let text = compression.compress(text.into())?;
        if figures.choice == Choice::All {
            let written = Text {
                at: Instant::now(),
                figures,
                text: text.clone(),
            };
            stored.insert((format, compression), written);
        }
        Ok(text)
    }

    /// Removes texts that are older than [`KEPT`], so that they use no memory until the next scrape.
    pub(super) fn forget_old(&self) {
        self.stored().retain(|_, text| text.at.elapsed() < KEPT);
    }

    fn stored(&self) -> MutexGuard<'_, HashMap<(Format, Compression), Text>> {
        // A lock is poisoned only by a panic, and a panic ends the process.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Figures {
    /// Whether these are the same figures, in the same memory.
    fn are(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.snapshot, &other.snapshot)
            && self.read.is_same(&other.read)
            && self.choice == other.choice
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::{Choice, Compression, Figures, Format, KEPT, Texts};
    use crate::model::{Kernel, Snapshot};
    use crate::publish::on_request::ReadFigures;

    fn read() -> ReadFigures {
        ReadFigures {
            kernel: Some(Arc::new(Kernel::default())),
            textfiles: None,
            ended: Arc::default(),
        }
    }

    #[test]
    fn the_same_figures_are_written_once_in_each_format_and_compression() {
        let texts = Texts::default();
        let none = Compression::None;
        let figures = Figures {
            snapshot: Arc::new(Snapshot::recorded()),
            interval: Duration::from_secs(5),
            read: read(),
            choice: Choice::All,
        };
        let text = |figures: &Figures, format, compression| {
            texts.text(figures.clone(), format, compression).unwrap()
        };
        let first = text(&figures, Format::Classic, none);
        let again = || text(&figures, Format::Classic, none).as_ptr() == first.as_ptr();
        assert!(again());
        assert_ne!(text(&figures, Format::OpenMetrics, none), first);
        assert_ne!(text(&figures, Format::Classic, Compression::Gzip), first);
        let chosen = Figures {
            choice: Choice::Only(vec!["cpu".to_owned()]),
            ..figures.clone()
        };
        assert!(text(&chosen, Format::Classic, none).len() < first.len());
        assert!(again());
        let other = Figures {
            read: read(),
            ..figures.clone()
        };
        assert_ne!(text(&other, Format::Classic, none).as_ptr(), first.as_ptr());
        assert!(!again());
        texts.forget_old();
        assert_eq!(texts.stored().len(), 3);
        std::thread::sleep(KEPT);
        texts.forget_old();
        assert!(texts.stored().is_empty());
    }
}
