"""The whole thing: real SDKs and bare sockets, a real `serve` process, a scripted upstream."""
