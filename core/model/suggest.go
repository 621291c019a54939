package model

import (
	"slices"
	"strings"
)

// closest returns up to n of the candidates that name may have been meant to be, nearest first: those that
// contain it, and those within an edit distance of a third of their length.
func closest(name string, candidates []string, n int) []string {
	const longest = 64 // a name beyond that is no typing error, and distance is quadratic
	if len(name) > longest {
		return nil
	}
	type scored struct {
		name  string
		score int
	}
	var found []scored
	lower := strings.ToLower(name)
	for _, c := range candidates {
		if len(c) > longest {
			continue
		}
		d := editDistance(lower, strings.ToLower(c))
		if len(lower) >= 3 && strings.Contains(strings.ToLower(c), lower) {
			d = min(d, 2)
		}
		if d <= max(2, len(c)/3) && d < len(c) {
			found = append(found, scored{c, d})
		}
	}
	slices.SortFunc(found, func(a, b scored) int {
		if a.score != b.score {
			return a.score - b.score
		}
		return strings.Compare(a.name, b.name)
	})
	var out []string
	for _, f := range found[:min(n, len(found))] {
		out = append(out, f.name)
	}
	return out
}

// editDistance is Levenshtein's: the fewest inserted, deleted and replaced bytes that turn a into b.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
