//! The dashboard for every day: is mail served, and by whom.

use super::grafana::{Dashboard, Panel, Query, Row, Unit};

/// Is mail served?
pub const OPERATIONS: Dashboard = Dashboard {
    file: "operations.json",
    uid: "ferrypost-operations",
    title: "Ferrypost: operations",
    description: "Whether mail is served, by which server, and what fails whose fault.",
    rows: &[
        Row {
            title: "Now",
            panels: &[
                Panel {
                    title: "Data planes that take clients",
                    description: "Fewer than are running: FerrypostDataPlaneNotReady in the runbook.",
                    unit: Unit::Count,
                    stat: true,
                    queries: &[Query {
                        expr: "sum(ferrypost_dataplane_ready{namespace=~\"$namespace\"})",
                        legend: "ready",
                    }],
                },
                Panel {
                    title: "Servers that were not found as they should be",
                    description: "Each pair of data plane and endpoint whose last probe failed.",
                    unit: Unit::Count,
                    stat: true,
                    queries: &[Query {
                        expr: "sum(1 - ferrypost_dataplane_backend_reachable{namespace=~\"$namespace\"})",
                        legend: "unreachable",
                    }],
                },
                Panel {
                    title: "Oldest table",
                    description: "How long ago the table of the data plane that is furthest behind was known to be the truth.",
                    unit: Unit::Seconds,
                    stat: true,
                    queries: &[Query {
                        expr: "max(ferrypost_dataplane_table_age_seconds{namespace=~\"$namespace\"})",
                        legend: "age",
                    }],
                },
                Panel {
                    title: "Leaders",
                    description: "One. None: moves stand still.",
                    unit: Unit::Count,
                    stat: true,
                    queries: &[Query {
                        expr: "sum(ferrypost_controlplane_leader{namespace=~\"$namespace\"})",
                        legend: "leaders",
                    }],
                },
            ],
        },
        Row {
            title: "Clients",
            panels: &[
                Panel {
                    title: "Sessions by server",
                    description: "What is open and has a route. In a migration one line falls as the other rises.",
                    unit: Unit::Count,
                    stat: false,
                    queries: &[Query {
                        expr: "sum by (destination, protocol) (ferrypost_dataplane_sessions_open{namespace=~\"$namespace\"})",
                        legend: "{{destination}} {{protocol}}",
                    }],
                },
                Panel {
                    title: "Connections",
                    description: "Of clients, before their login and after it. Many before it: slow servers, or an attack.",
                    unit: Unit::Count,
                    stat: false,
                    queries: &[Query {
                        expr: "sum by (listener, login) (ferrypost_dataplane_listener_connections{namespace=~\"$namespace\"})",
                        legend: "{{listener}} {{login}}",
                    }],
                },
                Panel {
                    title: "Logins",
                    description: "By how they ended.",
                    unit: Unit::PerSecond,
                    stat: false,
                    queries: &[Query {
                        expr: "sum by (protocol, outcome) (rate(ferrypost_dataplane_logins_total{namespace=~\"$namespace\"}[$__rate_interval])) > 0",
                        legend: "{{protocol}} {{outcome}}",
                    }],
                },
                Panel {
                    title: "Failed logins by blame",
                    description: "Clients fail for wrong passwords all day. The others should be at zero.",
                    unit: Unit::PerSecond,
                    stat: false,
                    queries: &[Query {
                        expr: "sum by (blame) (rate(ferrypost_dataplane_logins_total{namespace=~\"$namespace\",blame!=\"nobody\"}[$__rate_interval]))",
                        legend: "{{blame}}",
                    }],
                },
            ],
        },
        Row {
            title: "Traffic",
            panels: &[
                Panel {
                    title: "Octets relayed",
                    description: "Up from clients to servers, down to clients.",
                    unit: Unit::BytesPerSecond,
                    stat: false,
                    queries: &[Query {
                        expr: "sum by (protocol, direction) (rate(ferrypost_dataplane_relay_io_bytes_total{namespace=~\"$namespace\"}[$__rate_interval]))",
                        legend: "{{protocol}} {{direction}}",
                    }],
                },
                Panel {
                    title: "How sessions end",
                    description: "By what ended them.",
                    unit: Unit::PerSecond,
                    stat: false,
                    queries: &[Query {
                        expr: "sum by (end) (rate(ferrypost_dataplane_session_duration_seconds_count{namespace=~\"$namespace\"}[$__rate_interval])) > 0",
                        legend: "{{end}}",
                    }],
                },
                Panel {
                    title: "Kept octets",
                    description: "What clients and servers do not take. Bounded by `limits.connections.kept`.",
                    unit: Unit::Bytes,
                    stat: false,
                    queries: &[Query {
                        expr: "sum by (instance) (ferrypost_dataplane_relay_kept_bytes{namespace=~\"$namespace\"})",
                        legend: "{{instance}}",
                    }],
                },
            ],
        },
        Row {
            title: "HTTP, deliveries, look-ups",
            panels: &[
                Panel {
                    title: "Requests by HTTP",
                    description: "By how they ended.",
                    unit: Unit::PerSecond,
                    stat: false,
                    queries: &[Query {
                        expr: "sum by (outcome) (rate(ferrypost_dataplane_exchange_duration_seconds_count{namespace=~\"$namespace\"}[$__rate_interval])) > 0",
                        legend: "{{outcome}}",
                    }],
                },
                Panel {
                    title: "Time of a request",
                    description: "Long polls and event streams are in it: look at the median first.",
                    unit: Unit::Seconds,
                    stat: false,
                    queries: &[
                        Query {
                            expr: "histogram_quantile(0.5, sum by (le) (rate(ferrypost_dataplane_exchange_duration_seconds_bucket{namespace=~\"$namespace\"}[$__rate_interval])))",
                            legend: "median",
                        },
                        Query {
                            expr: "histogram_quantile(0.95, sum by (le) (rate(ferrypost_dataplane_exchange_duration_seconds_bucket{namespace=~\"$namespace\"}[$__rate_interval])))",
                            legend: "95 of 100",
                        },
                    ],
                },
                Panel {
                    title: "Deliveries",
                    description: "Recipients that mail systems named, by what they were told.",
                    unit: Unit::PerSecond,
                    stat: false,
                    queries: &[Query {
                        expr: "sum by (outcome) (rate(ferrypost_dataplane_deliveries_total{namespace=~\"$namespace\"}[$__rate_interval])) > 0",
                        legend: "{{outcome}}",
                    }],
                },
                Panel {
                    title: "Look-ups",
                    description: "What mail systems asked, by what they were told.",
                    unit: Unit::PerSecond,
                    stat: false,
                    queries: &[Query {
                        expr: "sum by (outcome) (rate(ferrypost_dataplane_lookups_total{namespace=~\"$namespace\"}[$__rate_interval]))",
                        legend: "{{outcome}}",
                    }],
                },
            ],
        },
        Row {
            title: "Servers",
            panels: &[
                Panel {
                    title: "Found by the probe",
                    description: "1: as sessions need it, from every data plane. `/stats` says what is wrong otherwise.",
                    unit: Unit::Count,
                    stat: false,
                    queries: &[Query {
                        expr: "min by (destination, protocol) (ferrypost_dataplane_backend_reachable{namespace=~\"$namespace\"})",
                        legend: "{{destination}} {{protocol}}",
                    }],
                },
                Panel {
                    title: "Breakers",
                    description: "1: the server fails one client after the other.",
                    unit: Unit::Count,
                    stat: false,
                    queries: &[Query {
                        expr: "max by (destination, protocol) (ferrypost_dataplane_backend_breaker{namespace=~\"$namespace\"})",
                        legend: "{{destination}} {{protocol}}",
                    }],
                },
                Panel {
                    title: "Store",
                    description: "How long 99 of 100 operations of the control plane's store took.",
                    unit: Unit::Seconds,
                    stat: false,
                    queries: &[Query {
                        expr: "histogram_quantile(0.99, sum by (operation, le) (rate(ferrypost_controlplane_store_operation_duration_seconds_bucket{namespace=~\"$namespace\",operation=~\"transact|range\"}[$__rate_interval]))) > 0",
                        legend: "{{operation}}",
                    }],
                },
            ],
        },
    ],
};
