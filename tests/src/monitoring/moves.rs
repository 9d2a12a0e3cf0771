//! The dashboard for a migration: how far it is, and what stands in its way.

use super::grafana::{Dashboard, Panel, Query, Row, Unit};

/// How far is the migration?
pub const MOVES: Dashboard = Dashboard {
    file: "moves.json",
    uid: "ferrypost-moves",
    title: "Ferrypost: migration progress",
    description: "Where accounts live, how moves go, and what people notice of them.",
    rows: &[
        Row {
            title: "Now",
            panels: &[
                Panel {
                    title: "Accounts by server",
                    description: "Accounts with a record. Those that have never moved may have none.",
                    unit: Unit::Count,
                    stat: true,
                    queries: &[Query {
                        expr: "max by (destination) (ferrypost_controlplane_accounts{namespace=~\"$namespace\"})",
                        legend: "{{destination}}",
                    }],
                },
                Panel {
                    title: "Moves that have not ended",
                    description: "By phase. Only those that are fencing, quiesced or in the delta hook hold logins.",
                    unit: Unit::Count,
                    stat: true,
                    queries: &[Query {
                        expr: "max by (phase) (ferrypost_controlplane_migrations_unfinished{namespace=~\"$namespace\"})",
                        legend: "{{phase}}",
                    }],
                },
                Panel {
                    title: "Data planes by standing",
                    description: "Moves wait for every registered one that is not synced.",
                    unit: Unit::Count,
                    stat: true,
                    queries: &[Query {
                        expr: "max by (standing) (ferrypost_controlplane_data_planes{namespace=~\"$namespace\"})",
                        legend: "{{standing}}",
                    }],
                },
                Panel {
                    title: "Restored store",
                    description: "1: nothing moves until ResolveRewound was called.",
                    unit: Unit::Count,
                    stat: true,
                    queries: &[Query {
                        expr: "max(ferrypost_controlplane_rewound{namespace=~\"$namespace\"})",
                        legend: "rewound",
                    }],
                },
            ],
        },
        Row {
            title: "Progress",
            panels: &[
                Panel {
                    title: "Accounts by server, over time",
                    description: "The migration in one picture.",
                    unit: Unit::Count,
                    stat: false,
                    queries: &[Query {
                        expr: "max by (destination) (ferrypost_controlplane_accounts{namespace=~\"$namespace\"})",
                        legend: "{{destination}}",
                    }],
                },
                Panel {
                    title: "Moves that ended",
                    description: "Flipped or aborted, in each quarter of an hour.",
                    unit: Unit::Count,
                    stat: false,
                    queries: &[Query {
                        expr: "sum by (outcome) (increase(ferrypost_controlplane_migrations_total{namespace=~\"$namespace\"}[15m]))",
                        legend: "{{outcome}}",
                    }],
                },
                Panel {
                    title: "Why moves were aborted",
                    description: "The first reason of each. The runbook has what to do: FerrypostMovesAbort.",
                    unit: Unit::Count,
                    stat: false,
                    queries: &[Query {
                        expr: "sum by (reason) (increase(ferrypost_controlplane_migrations_total{namespace=~\"$namespace\",outcome=\"aborted\"}[1h]))",
                        legend: "{{reason}}",
                    }],
                },
            ],
        },
        Row {
            title: "What people notice",
            panels: &[
                Panel {
                    title: "How long logins were held",
                    description: "From the fence to the flip. Some clients give up after thirty seconds.",
                    unit: Unit::Seconds,
                    stat: false,
                    queries: &[
                        Query {
                            expr: "histogram_quantile(0.5, sum by (le) (increase(ferrypost_controlplane_migration_held_seconds_bucket{namespace=~\"$namespace\"}[15m])))",
                            legend: "median",
                        },
                        Query {
                            expr: "histogram_quantile(0.9, sum by (le) (increase(ferrypost_controlplane_migration_held_seconds_bucket{namespace=~\"$namespace\"}[15m])))",
                            legend: "9 of 10",
                        },
                    ],
                },
                Panel {
                    title: "Held now",
                    description: "Accounts that are fenced, and logins that wait for them.",
                    unit: Unit::Count,
                    stat: false,
                    queries: &[
                        Query {
                            expr: "max(ferrypost_dataplane_accounts_fenced{namespace=~\"$namespace\"})",
                            legend: "accounts",
                        },
                        Query {
                            expr: "sum(ferrypost_dataplane_logins_held{namespace=~\"$namespace\"})",
                            legend: "logins",
                        },
                    ],
                },
                Panel {
                    title: "Sessions that moves ended",
                    description: "Their clients come back by themselves and land at the new home.",
                    unit: Unit::PerSecond,
                    stat: false,
                    queries: &[Query {
                        expr: "sum by (protocol) (rate(ferrypost_dataplane_session_duration_seconds_count{namespace=~\"$namespace\",end=\"moved\"}[$__rate_interval]))",
                        legend: "{{protocol}}",
                    }],
                },
            ],
        },
        Row {
            title: "What stands in the way",
            panels: &[
                Panel {
                    title: "Steps",
                    description: "That the leader has written. None while moves are unfinished: something waits.",
                    unit: Unit::PerSecond,
                    stat: false,
                    queries: &[Query {
                        expr: "sum by (step) (rate(ferrypost_controlplane_migration_steps_total{namespace=~\"$namespace\"}[$__rate_interval]))",
                        legend: "{{step}}",
                    }],
                },
                Panel {
                    title: "Closes that were not confirmed",
                    description: "Sessions whose server did not end its side. Moves of their accounts wait or are aborted.",
                    unit: Unit::Count,
                    stat: false,
                    queries: &[Query {
                        expr: "sum by (instance) (ferrypost_dataplane_closes_unconfirmed{namespace=~\"$namespace\"})",
                        legend: "{{instance}}",
                    }],
                },
                Panel {
                    title: "Revisions",
                    description: "The control planes' revision of the store and the data planes' table. They rise together.",
                    unit: Unit::Count,
                    stat: false,
                    queries: &[
                        Query {
                            expr: "max by (instance) (ferrypost_controlplane_store_revision{namespace=~\"$namespace\"})",
                            legend: "control plane {{instance}}",
                        },
                        Query {
                            expr: "max by (instance) (ferrypost_dataplane_table_revision{namespace=~\"$namespace\",part=\"store\"})",
                            legend: "data plane {{instance}}",
                        },
                    ],
                },
            ],
        },
    ],
};
