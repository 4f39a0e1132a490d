//! The figures of other programs: files in the text format of Prometheus in the directory `TEXTFILE_DIR`. They are read only on request.

mod merge;
mod parse;
mod reader;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, Context, Handler, ResponseFuture};
use tokio::sync::Mutex;
use tracing::warn;

use super::blocking::Blocking;
use crate::messages::ReadTextfiles;
use crate::model::{TextfileProblem, Textfiles};
use reader::Reader;

/// Requests within this time get the same reading.
const MAX_AGE: Duration = Duration::from_secs(1);
/// Timeout of a reading. Prometheus waits 10 s for a scrape by default.
const DEADLINE: Duration = Duration::from_secs(3);

/// The actor that reads the files on request.
pub struct TextfileCollector {
    /// None without a directory. A request waits while another request reads.
    folder: Option<Arc<Mutex<Folder>>>,
}

struct Folder {
    path: PathBuf,
    reader: Blocking<Reader, Arc<Textfiles>>,
    newest: Option<(Instant, Arc<Textfiles>)>,
    /// The error of the newest reading, if it hung.
    hang: Option<String>,
}

impl TextfileCollector {
    /// Creates the collector of a directory, if there is one. It reads nothing yet. `is_published` returns whether the agent itself has a
    /// metric with this name.
    #[must_use]
    pub fn new(folder: Option<PathBuf>, is_published: fn(&str) -> bool) -> Self {
        let folder = folder.map(|path| {
            let reader = Reader::new(path.clone(), is_published);
            Arc::new(Mutex::new(Folder {
                path,
                reader: Blocking::new("text files", reader).within(DEADLINE),
                newest: None,
                hang: None,
            }))
        });
        Self { folder }
    }
}

impl Actor for TextfileCollector {
    type Context = Context<Self>;
}

impl Handler<ReadTextfiles> for TextfileCollector {
    type Result = ResponseFuture<Arc<Textfiles>>;

    fn handle(&mut self, _: ReadTextfiles, _: &mut Self::Context) -> Self::Result {
        let folder = self.folder.clone();
        Box::pin(async move {
            match folder {
                Some(folder) => folder.lock().await.read().await,
                None => Arc::default(),
            }
        })
    }
}

impl Folder {
    async fn read(&mut self) -> Arc<Textfiles> {
        if let Some((at, newest)) = &self.newest
            && at.elapsed() < MAX_AGE
        {
            return Arc::clone(newest);
        }
        let newest = match self.reader.read(Reader::read).await {
            Ok(newest) => {
                self.hang = None;
                newest
            }
            Err(error) => self.hanging(error),
        };
        self.newest = Some((Instant::now(), Arc::clone(&newest)));
        newest
    }

    /// Returns a reading without figures. Logs the error once.
    fn hanging(&mut self, error: String) -> Arc<Textfiles> {
        let path = self.path.display().to_string();
        if self.hang.is_none() {
            warn!(file = %path, %error, "figures of a text file left out");
        }
        self.hang = Some(error.clone());
        Arc::new(Textfiles {
            problems: vec![TextfileProblem { path, error }],
            ..Textfiles::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use actix::Actor as _;

    use super::TextfileCollector;
    use crate::messages::ReadTextfiles;
    use crate::model::Textfiles;

    #[actix::test]
    async fn requests_at_the_same_time_get_the_same_reading() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.prom"), "a 1\n").unwrap();
        let path = Some(folder.path().to_owned());
        let collector = TextfileCollector::new(path, |_| false).start();
        let read = || collector.send(ReadTextfiles);
        let (first, second) = futures_util::future::join(read(), read()).await;
        let first = first.unwrap();
        assert!(Arc::ptr_eq(&first, &second.unwrap()));
        assert_eq!(first.families.len(), 1);
        let off = TextfileCollector::new(None, |_| false).start();
        assert_eq!(
            *off.send(ReadTextfiles).await.unwrap(),
            Textfiles::default()
        );
    }
}
