"""PostgreSQL and NATS JetStream out of wheels: found, prepared and started without any system package."""

from paperfirm.servers.identity import Identity, Kind, choose_identity, enter
from paperfirm.servers.model import ServerError, ServerPlan
from paperfirm.servers.nats import prepare_nats
from paperfirm.servers.postgres import is_ready, make_cluster, plan_postgres

__all__ = [
    "Identity",
    "Kind",
    "ServerError",
    "ServerPlan",
    "choose_identity",
    "enter",
    "is_ready",
    "make_cluster",
    "plan_postgres",
    "prepare_nats",
]
