"""`python -m agentflow`: the command line."""

from agentflow.cli.app import main

if __name__ == "__main__":
    main()
