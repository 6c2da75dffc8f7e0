"""What every dock is given: runs found, followed, started; the notebook; the requests of one dock to another."""
