"""Advice from recorded traffic: which NetworkPolicies would allow it, and what given ones would do to it."""
