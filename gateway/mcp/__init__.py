"""MCP servers of one agent: started, watched, restarted, asked. The SDK is imported only when one is configured."""
