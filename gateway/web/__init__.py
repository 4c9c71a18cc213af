"""The endpoints: aiohttp routes and middleware."""
