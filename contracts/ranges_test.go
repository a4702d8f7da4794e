package contracts_test

import (
	"encoding/json"
	"testing"

	"pgregory.net/rapid"

	"leadpipe/contracts"
)

// A set of sequences behaves like a map of them, as long as it is not over its bound.
func TestRangesAreASet(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var r contracts.Ranges
		want := map[uint64]bool{}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			seq := rapid.Uint64Range(1, 40).Draw(t, "sequence")
			r, want[seq] = r.With(seq), true
			for s := range uint64(42) {
				if r.Has(s) != want[s] {
					t.Fatalf("%s has %d: %v", r, s, r.Has(s))
				}
			}
			for i := 1; i < len(r); i++ {
				if r[i].First <= r[i-1].Last+1 {
					t.Fatalf("%s: parts that touch", r)
				}
			}
		}
		data, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var back contracts.Ranges
		if err := json.Unmarshal(data, &back); err != nil || back.String() != r.String() {
			t.Fatalf("%s came back as %s: %v", data, back, err)
		}
	})
}

// A set is bounded: it may then have more than was added, and never less.
func TestRangesAreBounded(t *testing.T) {
	t.Parallel()
	var r contracts.Ranges
	for i := range uint64(20_000) {
		r = r.With(i * i)
	}
	if len(r) > 1000 {
		t.Errorf("%d parts", len(r))
	}
	for i := range uint64(20_000) {
		if !r.Has(i * i) {
			t.Fatalf("lacks %d", i*i)
		}
	}
}

func FuzzRanges(f *testing.F) {
	for _, s := range []string{`""`, `"1"`, `"1-3,5"`, `"3-1"`, `"1,1"`, `"x"`, `5`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var r contracts.Ranges
		if json.Unmarshal(data, &r) != nil {
			return
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var back contracts.Ranges
		if err := json.Unmarshal(again, &back); err != nil || back.String() != r.String() {
			t.Errorf("%s: %s, %v", data, again, err)
		}
	})
}
