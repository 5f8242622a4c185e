"""What a program tells its readers: a listing, a profile, a plot."""
