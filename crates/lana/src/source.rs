//! Where a teacher's weights come from: a file, or the Hugging Face hub.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use hf_hub::api::sync::{ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};
use lana_graph::Weights;
use lana_models::zoo;
use serde::{Deserialize, Serialize};

use crate::{Error, Progress, Result};

/// The file that timm's repositories, like most, keep weights in.
const HUB_FILE: &str = "model.safetensors";
/// The hub, unless HF_ENDPOINT names a mirror.
const HUB: &str = "https://huggingface.co";

/// What `--weights` takes: the path of a safetensors file, or `hf:OWNER/REPO`, a file on the Hugging Face hub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum WeightsSource {
    /// A safetensors file.
    File(PathBuf),
    /// A file on the hub: `hf:OWNER/REPO`, `hf:OWNER/REPO:FILE`, either with `@REVISION`.
    Hub(HubFile),
}

/// A file of a repository on the Hugging Face hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubFile {
    /// The repository, `OWNER/REPO`.
    pub repository: String,
    /// The file in it; `model.safetensors` if none is given.
    pub file: String,
    /// A branch, tag or commit; `main` if none is given.
    pub revision: String,
}

impl HubFile {
    /// The network of the zoo that a repository of timm's is named for (`timm/NAME.TAG`), where that is another one.
    fn other_network(&self, network: &str) -> Option<&str> {
        let name = self.repository.strip_prefix("timm/")?.split('.').next()?;
        (name != network && zoo::entry(name).is_ok()).then_some(name)
    }
}

impl WeightsSource {
    /// Warns of weights whose repository is named for another network of the zoo. Names and shapes need not tell: the weights of
    /// `tf_efficientnet_b0` fit `efficientnet_b0`, which pads otherwise.
    pub(crate) fn warn_of_another(&self, network: &str, progress: &dyn Progress) {
        let WeightsSource::Hub(file) = self else { return };
        if let Some(other) = file.other_network(network) {
            progress.warn(&format!(
                "{self} are weights of `{other}`, not of `{network}`: what fits may still be wrong"
            ));
        }
    }

    /// Reads the weights, fetching them first if they are on the hub and not in its cache.
    pub fn load(&self, progress: &dyn Progress) -> Result<Weights> {
        match self {
            WeightsSource::File(path) => Ok(Weights::load(path)?),
            WeightsSource::Hub(file) => {
                let path = Hub::from_env()?.fetch(file, progress)?;
                Weights::load(&path).map_err(|error| match error {
                    // A cache that holds half a file would give it again and again.
                    lana_graph::Error::File { .. } => Error::input(
                        error.to_string(),
                        format!(
                            "if it was cut off, delete {} and give the same command again; else name another file of the \
                             repository, or mend a copy and give it as --weights FILE",
                            path.display()
                        ),
                    ),
                    other => other.into(),
                })
            }
        }
    }
}

impl From<PathBuf> for WeightsSource {
    fn from(path: PathBuf) -> Self {
        WeightsSource::File(path)
    }
}

impl FromStr for WeightsSource {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some(rest) = text.strip_prefix("hf:") else {
            return Ok(WeightsSource::File(text.into()));
        };
        let (rest, revision) = rest.split_once('@').unwrap_or((rest, "main"));
        let (repository, file) = rest.split_once(':').unwrap_or((rest, HUB_FILE));
        // Parts of a path in the cache and of an address: nothing may lead out of them.
        let is_path = |text: &str| {
            text.split('/').all(|part| {
                !matches!(part, "" | "." | "..")
                    && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+".contains(c))
            })
        };
        let is_repository = is_path(repository) && repository.split('/').count() == 2;
        if !is_repository || !is_path(file) || !is_path(revision) {
            return Err(Error::input(
                format!("weights `{text}`: not OWNER/REPO, OWNER/REPO:FILE or OWNER/REPO@REVISION"),
                "such as hf:timm/efficientnet_b2.ra_in1k; a file is given by its path, without hf:",
            ));
        }
        Ok(WeightsSource::Hub(HubFile {
            repository: repository.into(),
            file: file.into(),
            revision: revision.into(),
        }))
    }
}

impl TryFrom<String> for WeightsSource {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<WeightsSource> for String {
    fn from(source: WeightsSource) -> Self {
        source.to_string()
    }
}

impl fmt::Display for WeightsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WeightsSource::File(path) => path.display().fmt(f),
            WeightsSource::Hub(file) => file.fmt(f),
        }
    }
}

impl fmt::Display for HubFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf:{}", self.repository)?;
        if self.file != HUB_FILE {
            write!(f, ":{}", self.file)?;
        }
        if self.revision != "main" {
            write!(f, "@{}", self.revision)?;
        }
        Ok(())
    }
}

/// The hub as Hugging Face's own tools see it: same variables, same cache, same token.
struct Hub {
    endpoint: String,
    cache: Cache,
    token: Option<String>,
}

impl Hub {
    /// `HF_ENDPOINT`, `HF_TOKEN`, and for the cache `HF_HUB_CACHE`, else `hub` in `HF_HOME`, else
    /// `~/.cache/huggingface/hub`.
    fn from_env() -> Result<Self> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let text = |name: &str| variable(name).and_then(|value| value.into_string().ok());
        let home = || variable("HF_HOME").map(PathBuf::from);
        let xdg = || variable("XDG_CACHE_HOME").map(|folder| PathBuf::from(folder).join("huggingface"));
        let user = || std::env::home_dir().map(|folder| folder.join(".cache").join("huggingface"));
        let folder = variable("HF_HUB_CACHE")
            .map(PathBuf::from)
            .or_else(|| home().or_else(xdg).or_else(user).map(|folder| folder.join("hub")))
            .ok_or_else(|| {
                Error::input("no home directory for the cache of the hub", "set HF_HOME to a folder")
            })?;
        let cache = Cache::new(std::path::absolute(&folder).map_err(Error::io(&folder))?);
        let token = text("HF_TOKEN").or_else(|| cache.token());
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| HUB.into());
        Ok(Hub { endpoint: endpoint.trim_end_matches('/').into(), cache, token })
    }

    /// The file's path in the cache, where it is put if it is not there.
    fn fetch(&self, wanted: &HubFile, progress: &dyn Progress) -> Result<PathBuf> {
        let HubFile { repository, file, revision } = wanted;
        let repo = Repo::with_revision(repository.clone(), RepoType::Model, revision.clone());
        if let Some(path) = self.cached(wanted, &repo) {
            return Ok(path);
        }
        let api = ApiBuilder::from_cache(self.cache.clone())
            .with_endpoint(self.endpoint.clone())
            .with_token(self.token.clone())
            .with_user_agent("lana", env!("CARGO_PKG_VERSION"))
            .build()
            .map_err(|error| self.failure(wanted, "", error))?
            .repo(repo);
        let url = api.url(file);
        progress.say(&format!("fetching {url}"));
        let path = api
            .download_with_progress(file, Meter { name: wanted.to_string(), done: 0, progress })
            .map_err(|error| self.failure(wanted, &url, error))?;
        progress.finish(&path.display().to_string());
        Ok(path)
    }

    /// The file's path in the cache if it is there. A commit needs no name that points to it.
    fn cached(&self, wanted: &HubFile, repo: &Repo) -> Option<PathBuf> {
        let cache = self.cache.repo(repo.clone());
        let commit = cache.pointer_path(&wanted.revision).join(&wanted.file);
        cache.get(&wanted.file).or_else(|| commit.exists().then_some(commit))
    }

    fn failure(&self, wanted: &HubFile, url: &str, error: ApiError) -> Error {
        use ureq::Error::StatusCode;
        let status = match &error {
            ApiError::RequestError(inner) => match **inner {
                StatusCode(status) => Some(status),
                _ => None,
            },
            _ => None,
        };
        match status {
            // The hub says 401 of what is not there, so as not to tell what is private.
            Some(401 | 403 | 404) => Error::input(
                format!("`{wanted}`: the hub has no {url}, or not for everybody"),
                format!(
                    "look for it at {}/{}; if it is private, set HF_TOKEN to a token that may read it",
                    self.endpoint, wanted.repository
                ),
            ),
            _ => Error::Fetch { what: wanted.to_string(), url: url.to_string(), reason: error.to_string() },
        }
    }
}

/// Progress in megabytes.
struct Meter<'a> {
    name: String,
    done: u64,
    progress: &'a dyn Progress,
}

impl hf_hub::api::Progress for Meter<'_> {
    fn init(&mut self, size: usize, _filename: &str) {
        self.progress.begin(&self.name, (size as u64).div_ceil(1_000_000), "MB");
        self.done = 0;
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        self.progress.advance(self.done / 1_000_000, "");
    }

    fn finish(&mut self) {}
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::Silent;

    fn hub(text: &str) -> HubFile {
        match text.parse().unwrap() {
            WeightsSource::Hub(file) => file,
            file => panic!("{file:?}"),
        }
    }

    #[test]
    fn what_weights_may_be() {
        assert_eq!(
            hub("hf:timm/efficientnet_b2.ra_in1k"),
            HubFile {
                repository: "timm/efficientnet_b2.ra_in1k".into(),
                file: "model.safetensors".into(),
                revision: "main".into(),
            }
        );
        assert_eq!(hub("hf:a/b:sub/c.safetensors@refs/pr/1").file, "sub/c.safetensors");
        assert_eq!(hub("hf:a/b:sub/c.safetensors@refs/pr/1").revision, "refs/pr/1");
        for text in ["hf:a/b", "hf:a/b:c.bin", "hf:a/b@v1", "hf:a/b:c.bin@v1", "hf", "dir/a:b@c", "C:\\w"] {
            let source: WeightsSource = text.parse().unwrap();
            assert_eq!(source.to_string(), text);
            assert_eq!(matches!(source, WeightsSource::Hub(_)), text.starts_with("hf:"), "{text}");
        }
        for text in ["hf:", "hf:a", "hf:a/b/c", "hf:../b", "hf:a/b:", "hf:a/b:../c", "hf:a/b@", "hf:a/b c"] {
            let error = text.parse::<WeightsSource>().unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
            assert_eq!(error.exit_status(), 2);
        }
    }

    /// A hub with one file, as far as hf-hub asks; it serves until the test ends. Gives its address.
    fn serve(path: &'static str, content: Vec<u8>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = answer(stream.unwrap(), path, &content);
            }
        });
        address
    }

    fn answer(mut stream: TcpStream, path: &str, content: &[u8]) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let request = lines.next().unwrap()?;
        let mut from = 0;
        let mut to = content.len() - 1;
        for line in lines {
            let line = line?.to_lowercase();
            if let Some(range) = line.strip_prefix("range: bytes=") {
                let (first, last) = range.split_once('-').unwrap();
                from = first.parse().unwrap();
                to = last.parse().unwrap_or(to);
            }
            if line.is_empty() {
                break;
            }
        }
        if request.split(' ').nth(1) != Some(path) {
            return stream
                .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
        let part = &content[from..=to];
        let total = content.len();
        write!(
            stream,
            "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{to}/{total}\r\n\
             ETag: \"0123abcd\"\r\nX-Repo-Commit: 89ab\r\nConnection: close\r\n\r\n",
            part.len()
        )?;
        stream.write_all(part)
    }

    fn at(endpoint: String, folder: &std::path::Path) -> Hub {
        Hub { endpoint, cache: Cache::new(folder.join("hub")), token: None }
    }

    #[test]
    fn repositories_of_other_networks_are_known() {
        let other = |repository: &str, network| hub(repository).other_network(network).map(str::to_owned);
        assert_eq!(
            other("hf:timm/tf_efficientnet_b0.ns_jft_in1k", "efficientnet_b0").unwrap(),
            "tf_efficientnet_b0"
        );
        for (repository, network) in [
            ("hf:timm/efficientnet_b0.ra_in1k", "efficientnet_b0"),
            ("hf:timm/efficientnet_b0", "efficientnet_b0"),
            ("hf:someone/tf_efficientnet_b0.mine", "efficientnet_b0"),
            ("hf:timm/of_ours.own", "efficientnet_b0"),
        ] {
            assert_eq!(other(repository, network), None, "{repository}");
        }
    }

    #[test]
    fn a_file_is_fetched_once_and_then_taken_from_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        let mut weights = Weights::new();
        weights.insert("fc.weight", lana_graph::Tensor::full(&[2, 3], 0.5));
        let wanted = hub("hf:timm/tiny.lana_in1k");
        let address = serve("/timm/tiny.lana_in1k/resolve/main/model.safetensors", weights.to_bytes());
        let path = at(address, folder.path()).fetch(&wanted, &Silent).unwrap();
        assert_eq!(Weights::load(&path).unwrap().get("fc.weight"), weights.get("fc.weight"));
        // Where Hugging Face's own tools look.
        let known = folder.path().join("hub/models--timm--tiny.lana_in1k/snapshots/89ab/model.safetensors");
        assert_eq!(path, known);

        // Nobody listens at port 9.
        let nobody = at("http://127.0.0.1:9".into(), folder.path());
        assert_eq!(nobody.fetch(&wanted, &Silent).unwrap(), path);
        assert_eq!(nobody.fetch(&hub("hf:timm/tiny.lana_in1k@89ab"), &Silent).unwrap(), path);
    }

    #[test]
    fn without_the_hub_the_error_says_what_to_download() {
        let folder = tempfile::tempdir().unwrap();
        let nobody = at("http://127.0.0.1:9".into(), folder.path());
        let error = nobody.fetch(&hub("hf:timm/resnet26d.bt_in1k"), &Silent).unwrap_err();
        let url = "http://127.0.0.1:9/timm/resnet26d.bt_in1k/resolve/main/model.safetensors";
        assert!(error.to_string().contains("hf:timm/resnet26d.bt_in1k"), "{error}");
        let hint = error.hint().unwrap();
        assert!(hint.contains(url) && hint.contains("--weights"), "{hint}");
        assert_eq!(error.exit_status(), 1);
    }

    #[test]
    fn what_the_hub_does_not_have_is_a_wrong_argument() {
        let folder = tempfile::tempdir().unwrap();
        let address = serve("/a/b/resolve/main/model.safetensors", b"x".to_vec());
        let hub_here = at(address.clone(), folder.path());
        for text in ["hf:a/c", "hf:a/b:other.safetensors", "hf:a/b@v2"] {
            let error = hub_here.fetch(&hub(text), &Silent).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
            assert!(error.hint().unwrap().contains(&address));
            assert_eq!(error.exit_status(), 2);
        }
    }
}
