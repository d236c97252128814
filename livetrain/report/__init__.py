"""Pages for people: the report, comparisons, the leaderboard, browse."""
