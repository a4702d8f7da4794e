package contracts

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Ranges is a set of stream sequences, as a text in JSON: "42-50,60". It is bounded:
// beyond maxRanges parts the two that are nearest to each other become one, so that it
// may then hold some sequences that were never added, and never lacks one that was.
type Ranges []Range

// A Range is the sequences First to Last, both included.
type Range struct{ First, Last uint64 }

// maxRanges bounds the parts of a set.
const maxRanges = 64

// Has says whether the set holds a sequence.
func (r Ranges) Has(sequence uint64) bool {
	_, found := r.find(sequence)
	return found
}

// find gives the place of the range that holds a sequence, or where it would stand.
func (r Ranges) find(sequence uint64) (int, bool) {
	return slices.BinarySearchFunc(r, sequence, func(x Range, seq uint64) int {
		switch {
		case x.Last < seq:
			return -1
		case x.First > seq:
			return 1
		}
		return 0
	})
}

// With gives the set with a sequence; r stays as it is.
func (r Ranges) With(sequence uint64) Ranges {
	i, found := r.find(sequence)
	if found {
		return r
	}
	out := slices.Insert(slices.Clone(r), i, Range{sequence, sequence})
	if i+1 < len(out) && out[i+1].First == sequence+1 {
		out[i].Last = out[i+1].Last
		out = slices.Delete(out, i+1, i+2)
	}
	if i > 0 && out[i-1].Last+1 == sequence {
		out[i-1].Last = out[i].Last
		out = slices.Delete(out, i, i+1)
	}
	if len(out) > maxRanges {
		nearest := 1
		for k := 2; k < len(out); k++ {
			if out[k].First-out[k-1].Last < out[nearest].First-out[nearest-1].Last {
				nearest = k
			}
		}
		out[nearest-1].Last = out[nearest].Last
		out = slices.Delete(out, nearest, nearest+1)
	}
	return out
}

func (r Ranges) String() string {
	parts := make([]string, len(r))
	for i, x := range r {
		parts[i] = strconv.FormatUint(x.First, 10)
		if x.Last != x.First {
			parts[i] += "-" + strconv.FormatUint(x.Last, 10)
		}
	}
	return strings.Join(parts, ",")
}

// MarshalJSON writes the set as a text.
func (r Ranges) MarshalJSON() ([]byte, error) { return json.Marshal(r.String()) }

// UnmarshalJSON reads the set from a text.
func (r *Ranges) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return err
	}
	*r = nil
	if text == "" {
		return nil
	}
	for part := range strings.SplitSeq(text, ",") {
		first, last, several := strings.Cut(part, "-")
		if !several {
			last = first
		}
		a, err := strconv.ParseUint(first, 10, 64)
		if err != nil {
			return fmt.Errorf("a range of sequences: %w", err)
		}
		b, err := strconv.ParseUint(last, 10, 64)
		if err != nil {
			return fmt.Errorf("a range of sequences: %w", err)
		}
		if b < a || len(*r) > 0 && (*r)[len(*r)-1].Last >= a {
			return fmt.Errorf("a range of sequences: %q is not in order", part)
		}
		*r = append(*r, Range{a, b})
	}
	return nil
}
