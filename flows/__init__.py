"""What runs when: the Prefect flows, their schedules and the command line."""
