"""Models this project trains or fits itself, with the commands that reproduce their weights."""
