"""The viewer: splats packed small, a page that draws them, and a file or a local server to open it with."""
