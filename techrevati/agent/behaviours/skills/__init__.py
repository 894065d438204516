"""Skills: directories of instructions, files and scripts that an agent can take up."""
