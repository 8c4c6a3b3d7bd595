"""Adapters to models, by role; `protocols` names the roles."""
