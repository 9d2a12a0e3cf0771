//! The real `grpcurl`, as an operator types it: no proto files, the server's reflection tells.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::tools::tool;

/// grpcurl ends with 64 plus the status code when the call itself failed.
const STATUS_BASE: i32 = 64;

/// How long grpcurl may take, beyond which it is killed.
const LIMIT: Duration = Duration::from_mins(2);

/// Why a call gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum GrpcurlError {
    /// The server answered with a status other than OK.
    #[error("status {code} {message:?} {details}")]
    Status {
        /// The gRPC status code.
        code: i32,
        /// Its message.
        message: String,
        /// Its `google.rpc` details as grpcurl prints them, an array; empty when there are none.
        details: Value,
        /// What a stream had sent before it failed.
        received: Vec<Value>,
    },
    /// grpcurl could not make the call: no connection, no such method, JSON that does not fit.
    #[error("grpcurl ended with {code:?}: {stderr}")]
    NotMade {
        /// Its exit status, if it ended by itself.
        code: Option<i32>,
        /// What it said.
        stderr: String,
    },
    /// It could not be started, or its output not be read.
    #[error("grpcurl: {0}")]
    Io(#[from] std::io::Error),
    /// It printed something else than JSON.
    #[error("grpcurl printed no JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// It took longer than two minutes.
    #[error("grpcurl did not end")]
    Late,
}

impl GrpcurlError {
    /// The gRPC status code, when the server gave one.
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Status { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// The `reason` of the status's `google.rpc.ErrorInfo`.
    pub fn reason(&self) -> Option<&str> {
        let Self::Status { details, .. } = self else {
            return None;
        };
        details
            .as_array()?
            .iter()
            .find_map(|detail| detail.get("reason")?.as_str())
    }
}

/// How to reach one server.
#[derive(Debug, Clone)]
pub struct Grpcurl {
    program: PathBuf,
    server: String,
    options: Vec<String>,
}

impl Grpcurl {
    /// A server without TLS at `host:port`.
    ///
    /// # Errors
    /// When grpcurl is not installed (`tests/tools/install` does it).
    pub fn plaintext(server: impl Into<String>) -> std::io::Result<Self> {
        Ok(Self {
            program: tool("grpcurl")?,
            server: server.into(),
            options: vec!["-plaintext".to_owned()],
        })
    }

    /// A server at `host:port` whose certificate one of the authorities in `ca` has signed.
    ///
    /// # Errors
    /// As [`Grpcurl::plaintext`].
    pub fn tls(server: impl Into<String>, ca: &Path) -> std::io::Result<Self> {
        Ok(Self {
            program: tool("grpcurl")?,
            server: server.into(),
            options: vec!["-cacert".to_owned(), ca.display().to_string()],
        })
    }

    /// Takes services from a descriptor set, for a server without reflection.
    #[must_use]
    pub fn protoset(mut self, file: &Path) -> Self {
        self.options
            .extend(["-protoset".to_owned(), file.display().to_string()]);
        self
    }

    /// Shows a client certificate.
    #[must_use]
    pub fn certificate(mut self, certificate: &Path, key: &Path) -> Self {
        self.options
            .extend(["-cert".to_owned(), certificate.display().to_string()]);
        self.options
            .extend(["-key".to_owned(), key.display().to_string()]);
        self
    }

    /// Sends a bearer token with every call, those to reflection included.
    #[must_use]
    pub fn token(mut self, token: &str) -> Self {
        self.options
            .extend(["-H".to_owned(), format!("authorization: Bearer {token}")]);
        self
    }

    /// The names of the server's services.
    ///
    /// # Errors
    /// As [`Grpcurl::call`].
    pub async fn services(&self) -> Result<Vec<String>, GrpcurlError> {
        let output = self.run(&["list"], None).await?;
        Ok(output.lines().map(str::to_owned).collect())
    }

    /// Calls `package.Service/Method` with a message and gives its one answer back; `Null` when there
    /// was none.
    ///
    /// # Errors
    /// [`GrpcurlError::Status`] when the server refused, the others when it was never asked.
    pub async fn call(&self, method: &str, request: &Value) -> Result<Value, GrpcurlError> {
        let mut answers = self.call_stream(method, request).await?;
        Ok(answers.pop().unwrap_or(Value::Null))
    }

    /// Calls a method that answers with a stream, to its end.
    ///
    /// # Errors
    /// As [`Grpcurl::call`].
    pub async fn call_stream(
        &self,
        method: &str,
        request: &Value,
    ) -> Result<Vec<Value>, GrpcurlError> {
        let output = self.run(&[method], Some(request.to_string())).await?;
        documents(&output)
    }

    async fn run(&self, args: &[&str], stdin: Option<String>) -> Result<String, GrpcurlError> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.options)
            .args(["-format-error", "-max-time", "110"]);
        if stdin.is_some() {
            command.args(["-d", "@"]);
        }
        command
            .arg(&self.server)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let mut pipe = child.stdin.take().expect("standard input is piped");
        // grpcurl may end before it has read: its exit status says why.
        let _ = pipe.write_all(stdin.unwrap_or_default().as_bytes()).await;
        drop(pipe);
        let output = tokio::time::timeout(LIMIT, child.wait_with_output())
            .await
            .map_err(|_| GrpcurlError::Late)??;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.code() {
            Some(0) => Ok(stdout),
            code => Err(failure(
                code,
                &stdout,
                &String::from_utf8_lossy(&output.stderr),
            )),
        }
    }
}

/// grpcurl prints answers one after the other, each over several lines.
fn documents(text: &str) -> Result<Vec<Value>, GrpcurlError> {
    let stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    Ok(stream.collect::<Result<Vec<_>, _>>()?)
}

/// With `-format-error`, the status is JSON on standard error.
fn failure(code: Option<i32>, stdout: &str, stderr: &str) -> GrpcurlError {
    let status = stderr.find('{').and_then(|start| {
        let mut stream = serde_json::Deserializer::from_str(&stderr[start..]).into_iter::<Value>();
        stream.next()?.ok()
    });
    match (code, status) {
        (Some(code), Some(status)) if code > STATUS_BASE => GrpcurlError::Status {
            code: code - STATUS_BASE,
            message: status["message"].as_str().unwrap_or_default().to_owned(),
            details: status
                .get("details")
                .cloned()
                .unwrap_or_else(|| Value::Array(Vec::new())),
            received: documents(stdout).unwrap_or_default(),
        },
        (code, _) => GrpcurlError::NotMade {
            code,
            stderr: stderr.trim().to_owned(),
        },
    }
}
