package keyword_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"leadpipe/internal/keyword"
)

// A sample is a text that somebody sent, and what a person who reads it takes it for.
type sample struct {
	text    string
	meaning keyword.Meaning
	keyword string
}

func samples(tb testing.TB) []sample {
	tb.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "texts.tsv"))
	if err != nil {
		tb.Fatal(err)
	}
	var all []sample
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), "\t", 3)
		if len(parts) != 3 {
			tb.Fatalf("no three columns: %q", line)
		}
		s := sample{meaning: keyword.Meaning(strings.TrimPrefix(parts[0], "nothing")), keyword: strings.TrimPrefix(parts[1], "-")}
		if err := json.Unmarshal([]byte(parts[2]), &s.text); err != nil {
			tb.Fatalf("%q: %v", line, err)
		}
		all = append(all, s)
	}
	return all
}

func TestWhatPeopleAnswer(t *testing.T) {
	t.Parallel()
	all := samples(t)
	counts := map[keyword.Meaning]int{}
	for _, s := range all {
		counts[s.meaning]++
		if m, k := keyword.Judge(s.text); m != s.meaning || k != s.keyword {
			t.Errorf("%q is %q by %q, want %q by %q", s.text, m, k, s.meaning, s.keyword)
		}
	}
	t.Logf("%d texts: %v", len(all), counts)
	if len(all) < 150 || counts[keyword.Nothing] < 60 {
		t.Errorf("only %d texts, %d of them ordinary answers", len(all), counts[keyword.Nothing])
	}
}

// The texts of the other files are UTF-8; one that is not must be judged too.
func TestBrokenText(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]keyword.Meaning{"\xff\xfe": keyword.Nothing, "\xffSTOP\xfe": keyword.OptOut} {
		if m, _ := keyword.Judge(text); m != want {
			t.Errorf("%q is %q", text, m)
		}
	}
}

// FuzzJudge holds what is said of the surroundings against every text.
func FuzzJudge(f *testing.F) {
	for _, s := range samples(f) {
		f.Add(s.text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, k := keyword.Judge(text)
		if (m == keyword.OptOut) != (k != "") {
			t.Fatalf("%q is %q by %q", text, m, k)
		}
		if !utf8.ValidString(text) {
			return
		}
		for _, around := range []string{" " + text + " ", "« " + text + " »", text + "!", "\u200b" + text, strings.ToLower(text)} {
			if m2, k2 := keyword.Judge(around); m2 != m || k2 != k {
				t.Fatalf("%q is %q by %q, and with other surroundings %q is %q by %q", text, m, k, around, m2, k2)
			}
		}
		if m, k := keyword.Judge("STOP " + text); m != keyword.OptOut || k != "STOP" {
			t.Fatalf("%q after STOP undoes it: %q by %q", text, m, k)
		}
	})
}
