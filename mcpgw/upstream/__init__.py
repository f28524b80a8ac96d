"""One file per way of reaching a server; each is a Link."""
