"""What a request passes before anything is done for it: who sends it, from where, how much, how often."""
