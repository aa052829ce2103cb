//! The v2 API as the demonstration's actors use it: over HTTP, one member after the other until one answers.

use super::Failure;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long one member may take to answer before the next is asked.
const ONE_TRY: Duration = Duration::from_millis(500);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(20);
/// Answers beyond this are not the demonstration's.
pub(super) const ANSWER_BYTES_MAX: usize = 1 << 20;

/// A key or a directory.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct KeyNode {
    pub(super) key: String,
    pub(super) value: Option<String>,
    pub(super) ttl: Option<i64>,
    pub(super) modified_index: u64,
    pub(super) nodes: Vec<KeyNode>,
}

/// An answer, or an event.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Reply {
    pub(super) action: String,
    pub(super) node: KeyNode,
    #[serde(default)]
    pub(super) prev_node: Option<KeyNode>,
}

/// What a member says of its part in the cluster.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RaftStatus {
    pub(super) id: String,
    pub(super) term: u64,
    pub(super) applied: u64,
    pub(super) lead: String,
}

#[derive(Deserialize)]
struct Vars {
    #[serde(rename = "raft.status")]
    raft: RaftStatus,
}

/// A request to whichever member answers.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    /// GET this path.
    Get(String),
    /// PUT this form to this path.
    Put(String, String),
}

/// How a request went.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) reply: Reply,
    /// Which member answered.
    pub(super) by: usize,
    /// How many others failed to before.
    pub(super) retries: u64,
    /// When the try that succeeded was sent.
    pub(super) sent: Instant,
}

/// A client that knows all members.
#[derive(Clone, Debug)]
pub(super) struct Api {
    http: reqwest::Client,
    members: Arc<[String]>,
}

impl Api {
    pub(super) fn new(members: impl IntoIterator<Item = String>) -> Result<Self, Failure> {
        // The HTTP client wants a TLS configuration even where there is none to talk to: one that trusts nobody.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure(error.to_string()))?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(ONE_TRY)
            .build()
            .map_err(|error| Failure(format!("no HTTP client: {error}")))?;
        Ok(Self { http, members: members.into_iter().collect() })
    }

    /// How many members there are.
    pub(super) fn members(&self) -> usize {
        self.members.len()
    }

    /// Asks the member `first`, then the next and so on, until one answers with success or `limit` has passed.
    pub(super) async fn ask(&self, first: usize, ask: &Ask, limit: Duration) -> Result<Answered, String> {
        let until = Instant::now() + limit;
        let mut retries = 0;
        loop {
            let by = (first + retries as usize) % self.members.len();
            let sent = Instant::now();
            match self.ask_one(by, ask).await {
                Ok(reply) => return Ok(Answered { reply, by, retries, sent }),
                Err(error) if Instant::now() >= until => return Err(error),
                Err(_) => retries += 1,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks one member once.
    pub(super) async fn ask_one(&self, member: usize, ask: &Ask) -> Result<Reply, String> {
        let base = &self.members[member];
        let request = match ask {
            Ask::Get(path) => self.http.get(format!("{base}{path}")),
            Ask::Put(path, form) => self
                .http
                .put(format!("{base}{path}"))
                .header("Content-Type", "application/x-www-form-urlencoded")
                .body(form.clone()),
        };
        json(&text(request).await?)
    }

    /// What a member knows of its cluster.
    pub(super) async fn status(&self, member: usize) -> Result<RaftStatus, String> {
        let request = self.http.get(format!("{}/debug/vars", self.members[member]));
        Ok(json::<Vars>(&text(request).await?)?.raft)
    }

    /// A token for a cluster of `size`, from the discovery service at `base`.
    pub(super) async fn new_token(&self, base: &str, size: usize) -> Result<String, String> {
        text(self.http.get(format!("{base}/new?size={size}"))).await
    }

    /// Every event from `index` on below `dir`, as the body of one answer that does not end.
    pub(super) async fn stream(
        &self,
        member: usize,
        dir: &str,
        index: u64,
    ) -> Result<reqwest::Response, String> {
        let base = &self.members[member];
        let url = format!("{base}/v2/keys{dir}?wait=true&stream=true&recursive=true&waitIndex={index}");
        let head = tokio::time::timeout(ONE_TRY, self.http.get(url).send()).await;
        let response =
            head.map_err(|_| "no answer in time".to_owned())?.map_err(|error| error.to_string())?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(format!("status {}", response.status()))
        }
    }
}

/// The body of a successful answer.
async fn text(request: reqwest::RequestBuilder) -> Result<String, String> {
    let mut response = request.timeout(ONE_TRY).send().await.map_err(|error| error.to_string())?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| error.to_string())? {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_BYTES_MAX {
            return Err("the answer is too large".to_owned());
        }
    }
    let body = String::from_utf8(body).map_err(|error| error.to_string())?;
    if response.status().is_success() { Ok(body) } else { Err(format!("{}: {body}", response.status())) }
}

fn json<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| format!("not understood: {error}: {text}"))
}
