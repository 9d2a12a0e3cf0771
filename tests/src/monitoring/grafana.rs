//! Dashboards as Grafana 9 and later read them.

use serde_json::{Value, json};

/// How wide a dashboard is, in Grafana's columns.
const WIDTH: usize = 24;
const PANEL_HEIGHT: usize = 8;

/// One page of panels.
#[derive(Debug)]
pub struct Dashboard {
    /// The file below `helm/monitoring/dashboards`.
    pub file: &'static str,
    /// What links name it by. Never changes.
    pub uid: &'static str,
    /// What people find it by.
    pub title: &'static str,
    /// What it answers.
    pub description: &'static str,
    /// Its panels.
    pub rows: &'static [Row],
}

/// Panels under one heading, side by side.
#[derive(Debug)]
pub struct Row {
    /// The heading.
    pub title: &'static str,
    /// From left to right, all of one width.
    pub panels: &'static [Panel],
}

/// One picture.
#[derive(Debug)]
pub struct Panel {
    /// What it shows.
    pub title: &'static str,
    /// How to read it: what is usual, and what to do otherwise.
    pub description: &'static str,
    /// What its values are.
    pub unit: Unit,
    /// Whether only the last values are shown, as numbers.
    pub stat: bool,
    /// What is drawn.
    pub queries: &'static [Query],
}

/// One or more lines of a panel.
#[derive(Debug)]
pub struct Query {
    /// In Prometheus' language, with `$namespace` and `$__rate_interval`.
    pub expr: &'static str,
    /// Each line's name, with `{{label}}`.
    pub legend: &'static str,
}

/// What values are, in Grafana's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// How many.
    Count,
    /// How many a second.
    PerSecond,
    /// A duration.
    Seconds,
    /// Octets.
    Bytes,
    /// Octets a second.
    BytesPerSecond,
    /// A share of one.
    Share,
}

impl Unit {
    fn grafana(self) -> &'static str {
        match self {
            Self::Count => "short",
            Self::PerSecond => "ops",
            Self::Seconds => "s",
            Self::Bytes => "bytes",
            Self::BytesPerSecond => "Bps",
            Self::Share => "percentunit",
        }
    }
}

impl Query {
    /// As Prometheus takes it, over all installations and a window of `window`.
    pub fn over_all(&self, window: &str) -> String {
        let expr = self.expr.replace("$namespace", ".*");
        expr.replace("$__rate_interval", window)
    }
}

impl Dashboard {
    /// Every panel.
    pub fn panels(&self) -> impl Iterator<Item = &'static Panel> {
        self.rows.iter().flat_map(|row| row.panels)
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let text = serde_json::to_string_pretty(&self.json());
        text.expect("values of ours are JSON") + "\n"
    }

    fn json(&self) -> Value {
        json!({
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["ferrypost", "mail"],
            "schemaVersion": 38,
            "editable": true,
            "refresh": "30s",
            "time": { "from": "now-6h", "to": "now" },
            "templating": { "list": [source_variable(), namespace_variable()] },
            "links": [{
                "type": "dashboards", "tags": ["ferrypost"], "asDropdown": true, "title": "Ferrypost",
                "includeVars": true, "keepTime": true,
            }],
            "panels": self.laid_out(),
        })
    }

    fn laid_out(&self) -> Vec<Value> {
        let mut panels = Vec::new();
        let mut line = 0;
        for row in self.rows {
            panels.push(json!({
                "id": panels.len() + 1, "type": "row", "title": row.title, "collapsed": false, "panels": [],
                "gridPos": { "x": 0, "y": line, "w": WIDTH, "h": 1 },
            }));
            let width = WIDTH / row.panels.len();
            for (column, panel) in row.panels.iter().enumerate() {
                let place =
                    json!({ "x": column * width, "y": line + 1, "w": width, "h": PANEL_HEIGHT });
                panels.push(panel.json(panels.len() + 1, &place));
            }
            line += 1 + PANEL_HEIGHT;
        }
        panels
    }
}

impl Panel {
    fn json(&self, id: usize, place: &Value) -> Value {
        let targets = self.queries.iter().zip('A'..).map(|(query, name)| {
            json!({
                "refId": name.to_string(), "expr": query.expr, "legendFormat": query.legend,
                "datasource": { "type": "prometheus", "uid": "${source}" },
            })
        });
        json!({
            "id": id,
            "type": if self.stat { "stat" } else { "timeseries" },
            "title": self.title,
            "description": self.description,
            "gridPos": place,
            "datasource": { "type": "prometheus", "uid": "${source}" },
            "fieldConfig": { "defaults": { "unit": self.unit.grafana(), "min": 0 }, "overrides": [] },
            "targets": targets.collect::<Vec<_>>(),
        })
    }
}

fn source_variable() -> Value {
    json!({ "name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus" })
}

fn namespace_variable() -> Value {
    json!({
        "name": "namespace", "label": "Namespace", "type": "query", "includeAll": true, "allValue": ".*", "multi": true,
        "current": { "text": "All", "value": "$__all" }, "refresh": 2,
        "datasource": { "type": "prometheus", "uid": "${source}" },
        "query": "label_values(ferrypost_dataplane_ready, namespace)",
    })
}
