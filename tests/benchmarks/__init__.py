"""Speed and memory, measured side by side with the thing they are compared to."""
