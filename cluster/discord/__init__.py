"""What is set up at Discord by hand, looked at and put right over its REST API. Nothing here connects a bot."""
