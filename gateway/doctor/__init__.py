"""`gateway doctor`: examines a site, running or only configured, and says what to do."""
