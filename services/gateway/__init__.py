"""The gateway: HTTP for residents, contractors and staff, the login page, and the dashboard. Never business rules."""
