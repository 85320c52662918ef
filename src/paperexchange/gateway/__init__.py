"""FIX gateways: connections, sessions, order entry, drop copy."""
