"""What reads the files and messages of strangers, as targets for any example."""
