//! A real browser, without a window: Debian's Chromium, told what to do by `WebDriver` (W3C).
//!
//! To it there is one host in the world, the public one, and it finds that at the port that it is given.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use http::header::HOST;
use http::{HeaderValue, Method};
use serde_json::{Value, json};

use crate::imap::{Connect, Security};
use crate::ports::Port;
use crate::process::{Process, Spawn, find_program};
use crate::wait::{Late, eventually};

use super::client::{PUBLIC, Question, Version, WebClient, WebError};

/// A browser takes a second to start and a tenth for a page; the limits are for a machine under load.
const START_LIMIT: Duration = Duration::from_mins(5);
const LIMIT: Duration = Duration::from_mins(2);

/// By what an answer means an element (`WebDriver`, section 12).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Why a browser did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum BrowserError {
    /// A program, or its port.
    #[error("browser: {0}")]
    Io(#[from] io::Error),
    /// It did not come up, or what was waited for did not come about.
    #[error("browser: {0}")]
    Late(#[from] Late),
    /// The driver did not answer.
    #[error("browser: {0}")]
    Web(#[from] WebError),
    /// The driver answered no JSON.
    #[error("browser: {0}")]
    Json(#[from] serde_json::Error),
    /// It could not be done.
    #[error("browser: {command}: {said}")]
    Refused {
        /// What was asked.
        command: String,
        /// The driver's word for it.
        said: Value,
    },
}

/// A browser with a profile of its own. Dropping it kills the driver, and the browser ends with that.
pub struct Browser {
    driver: Driver,
    /// The path that every command begins with.
    session: String,
}

impl Browser {
    /// Whether this is the one system for which `tests/tools/install` gets none: Ubuntu has browsers as snaps alone,
    /// which see folders of their own.
    pub fn is_left_out() -> bool {
        let system = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        system.lines().any(|line| line == "ID=ubuntu")
    }

    /// Opens one whose profile and log lie in `folder`, and for which the public host is at `front`.
    ///
    /// # Errors
    /// When Chromium is not installed, or does not come up.
    pub async fn open(folder: &Path, front: SocketAddr) -> Result<Self, BrowserError> {
        std::fs::create_dir_all(folder)?;
        let mut driver = Driver::start(folder)?;
        driver.wait_until_up().await?;
        let wanted = capabilities(folder, front)?;
        // A driver gives a browser a minute, which is not enough for it on any machine.
        let session = eventually("a browser", START_LIMIT, async || {
            driver.ask(Method::POST, "/session", Some(&wanted)).await
        });
        let session = session.await?;
        let id = session["sessionId"].as_str().unwrap_or_default();
        Ok(Self {
            session: format!("/session/{id}"),
            driver,
        })
    }

    /// Goes to a path of the public host, and waits until the page is there.
    ///
    /// # Errors
    /// When it does not come.
    pub async fn go(&self, path: &str) -> Result<(), BrowserError> {
        let url = json!({"url": format!("https://{PUBLIC}{path}")});
        self.post("/url", &url).await?;
        Ok(())
    }

    /// The path that it shows, and what is behind it.
    ///
    /// # Errors
    /// When the driver does not say.
    pub async fn place(&self) -> Result<String, BrowserError> {
        let url = self.ask(Method::GET, "/url", None).await?;
        let url = url.as_str().unwrap_or_default();
        let path = url.strip_prefix("https://");
        let path = path.and_then(|rest| rest.strip_prefix(PUBLIC));
        Ok(path.unwrap_or(url).to_owned())
    }

    /// Waits until it shows a path, as it does after a form was sent.
    ///
    /// # Errors
    /// [`Late`] with where it was last.
    pub async fn wait_for(&self, path: &str) -> Result<(), BrowserError> {
        let what = format!("the browser is at {path}");
        eventually(&what, LIMIT, async || {
            let place = self.place().await.map_err(|error| error.to_string())?;
            if place == path { Ok(()) } else { Err(place) }
        })
        .await?;
        Ok(())
    }

    /// The text of an element that a CSS selector finds, as it is shown.
    ///
    /// # Errors
    /// When there is none.
    pub async fn text(&self, selector: &str) -> Result<String, BrowserError> {
        let element = self.find(selector).await?;
        let text = self
            .ask(Method::GET, &format!("{element}/text"), None)
            .await?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// Types into an element.
    ///
    /// # Errors
    /// When there is none, or it takes no text.
    pub async fn write(&self, selector: &str, text: &str) -> Result<(), BrowserError> {
        let element = self.find(selector).await?;
        let text = json!({ "text": text });
        self.post(&format!("{element}/value"), &text).await?;
        Ok(())
    }

    /// Clicks on an element.
    ///
    /// # Errors
    /// When there is none, or it cannot be clicked on.
    pub async fn click(&self, selector: &str) -> Result<(), BrowserError> {
        let element = self.find(selector).await?;
        self.post(&format!("{element}/click"), &json!({})).await?;
        Ok(())
    }

    /// Runs the body of a function in the page, and gives back what it returns or promises.
    ///
    /// # Errors
    /// When it throws.
    pub async fn run(&self, script: &str) -> Result<Value, BrowserError> {
        let script = json!({"script": script, "args": []});
        self.post("/execute/sync", &script).await
    }

    /// The cookies of the page that it shows, those as well that no script sees.
    ///
    /// # Errors
    /// When the driver does not say.
    pub async fn cookies(&self) -> Result<Vec<Value>, BrowserError> {
        let cookies = self.ask(Method::GET, "/cookie", None).await?;
        Ok(cookies.as_array().cloned().unwrap_or_default())
    }

    /// Forgets all cookies of the page that it shows.
    ///
    /// # Errors
    /// When the driver does not.
    pub async fn forget(&self) -> Result<(), BrowserError> {
        self.ask(Method::DELETE, "/cookie", None).await?;
        Ok(())
    }

    /// Closes it.
    ///
    /// # Errors
    /// When it does not close.
    pub async fn close(self) -> Result<(), BrowserError> {
        self.ask(Method::DELETE, "", None).await?;
        Ok(())
    }

    /// The path of an element's commands.
    async fn find(&self, selector: &str) -> Result<String, BrowserError> {
        let by = json!({"using": "css selector", "value": selector});
        let found = self.post("/element", &by).await?;
        let id = found[ELEMENT].as_str().unwrap_or_default();
        Ok(format!("/element/{id}"))
    }

    async fn post(&self, command: &str, said: &Value) -> Result<Value, BrowserError> {
        self.ask(Method::POST, command, Some(said)).await
    }

    async fn ask(
        &self,
        method: Method,
        command: &str,
        said: Option<&Value>,
    ) -> Result<Value, BrowserError> {
        let path = format!("{}{command}", self.session);
        self.driver.ask(method, &path, said).await
    }
}

/// What takes commands for a browser.
struct Driver {
    process: Process,
    port: Port,
}

impl Driver {
    fn start(folder: &Path) -> io::Result<Self> {
        let port = Port::reserve()?;
        let process = Spawn::new("chromedriver", folder.join("driver.log"))?
            .arg(format!("--port={}", port.number()))
            // Whatever it and the browser leave behind.
            .env("HOME", folder)
            .env("TMPDIR", folder)
            .terminate_with_parent()
            .start()?;
        Ok(Self { process, port })
    }

    async fn wait_until_up(&mut self) -> Result<(), BrowserError> {
        let (process, at) = (&mut self.process, self.port.addr());
        eventually("the browser's driver", START_LIMIT, || {
            let ended = process.status();
            let said = process.log().tail();
            async move {
                if let Some(status) = ended.map_err(|error| error.to_string())? {
                    return Err(format!("it ended with {status}\n{said}"));
                }
                let status = ask(at, Method::GET, "/status", None).await;
                let status = status.map_err(|error| error.to_string())?;
                let is_ready = status["ready"] == true;
                is_ready.then_some(()).ok_or(status.to_string())
            }
        })
        .await?;
        Ok(())
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        said: Option<&Value>,
    ) -> Result<Value, BrowserError> {
        ask(self.port.addr(), method, path, said).await
    }
}

/// Gives a driver a command, by a connection of its own: the driver closes those that wait.
async fn ask(
    driver: SocketAddr,
    method: Method,
    path: &str,
    said: Option<&Value>,
) -> Result<Value, BrowserError> {
    let connect = Connect::new(driver, Security::Plain).limit(LIMIT);
    let mut client = WebClient::open(&connect, Version::Http1).await?;
    let question = match said {
        Some(said) => Question::post(path, "application/json", said.to_string()),
        None => Question::new(method.clone(), path),
    };
    // It listens to nobody who calls it by a name from outside.
    let host = HeaderValue::from_static("localhost");
    let answer = client.ask(question.with(HOST, host)).await?;
    let said = answer.json()?["value"].take();
    if answer.status.is_success() {
        return Ok(said);
    }
    Err(BrowserError::Refused {
        command: format!("{method} {path}"),
        said: said["message"].clone(),
    })
}

/// A browser that shows no window, asks nobody outside, and does not look who vouches for a certificate. In a sandbox it
/// would not start for root.
fn capabilities(folder: &Path, front: SocketAddr) -> io::Result<Value> {
    let rules = format!("MAP {PUBLIC}:443 {front}, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1");
    let arguments = [
        "--headless=new".to_owned(),
        "--no-sandbox".to_owned(),
        "--disable-gpu".to_owned(),
        "--disable-dev-shm-usage".to_owned(),
        "--disable-background-networking".to_owned(),
        // It goes when the driver does, whatever ends that.
        "--remote-debugging-pipe".to_owned(),
        format!("--user-data-dir={}", folder.join("profile").display()),
        format!("--host-resolver-rules={rules}"),
    ];
    let milliseconds = LIMIT.as_secs() * 1000;
    Ok(json!({"capabilities": {"alwaysMatch": {
        "acceptInsecureCerts": true,
        "timeouts": {"pageLoad": milliseconds, "script": milliseconds, "implicit": 0},
        "goog:chromeOptions": {
            "binary": find_program(Path::new("chromium"))?,
            "args": arguments,
        },
    }}}))
}
