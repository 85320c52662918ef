"""PostgreSQL and NATS JetStream out of wheels: found, prepared and started without any system package."""

from paperfirm.servers.identity import Identity, choose_identity, enter
from paperfirm.servers.model import ServerError, ServerPlan
from paperfirm.servers.nats import prepare_nats
from paperfirm.servers.postgres import prepare_postgres

__all__ = [
    "Identity",
    "ServerError",
    "ServerPlan",
    "choose_identity",
    "enter",
    "prepare_nats",
    "prepare_postgres",
]
