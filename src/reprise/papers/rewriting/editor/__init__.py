"""The editor in the browser: a page, and a server of this machine that keeps its sessions."""
