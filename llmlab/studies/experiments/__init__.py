"""Groups of runs that vary one thing: plan, worker, results, report. No Qt."""
