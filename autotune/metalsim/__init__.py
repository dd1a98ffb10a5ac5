"""Metal without a Mac: compiles real Metal source for the host, runs it thread by thread and checks it. See
README.md."""
