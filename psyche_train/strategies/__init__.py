"""Strategies: how a member makes an update, and how updates change the shared weights."""
