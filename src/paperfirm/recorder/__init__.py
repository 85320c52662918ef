"""The recorder: from the durable stream into PostgreSQL, each row once, however often either of them dies."""
