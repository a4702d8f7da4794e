package leads

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"leadpipe/internal/phone"
)

func TestWhatFieldsAskFor(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(filepath.Join("testdata", "fields.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(data)) {
		kind, quoted, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if strings.HasPrefix(line, "#") || !ok {
			continue
		}
		var name string
		if err := json.Unmarshal([]byte(quoted), &name); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		n++
		if got := kindOf(plain(name)); string(got) != kind {
			t.Errorf("%q asks for %s, want %s", name, got, kind)
		}
	}
	if n < 80 {
		t.Errorf("only %d names", n)
	}
}

// Of several numbers the first that can be texted counts, wherever it was typed.
func TestTheFirstNumberThatCanBeTexted(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fields      string
		want, issue string
	}{
		"a landline first":               {fields("telephone", "01 99 00 12 34", "portable", "06 39 98 01 02"), "+33639980102", ""},
		"a landline in Meta's own field": {fields("phone_number", "+33199001234", "whatsapp_number", "06 39 98 01 02"), "+33639980102", ""},
		"Meta's own field before others": {fields("portable", "06 39 98 01 03", "phone_number", "+33639980102"), "+33639980102", ""},
		"two in one field":               {fields("phone_number", "01 99 00 12 34 / 06 39 98 01 02"), "+33639980102", ""},
		"rubbish first":                  {fields("phone_number", "call me", "mobile", "p:+33639980102"), "+33639980102", ""},
		"words around it":                {fields("phone_number", "mon numéro : 06.39.98.01.02 (après 18h)"), "+33639980102", ""},
		"an apostrophe of a spreadsheet": {fields("phone_number", "'+33639980102"), "+33639980102", ""},
		"quotes":                         {fields("phone_number", `"06 39 98 01 02"`), "+33639980102", ""},
		"p: and words":                   {fields("téléphone", "p:01 99 00 12 34", "portable", "p: 06 39 98 01 02 perso"), "+33639980102", ""},
		"digits that are no number":      {fields("phone_number", "SIRET 123 456 789 00012"), "SIRET 123 456 789 00012", string(phone.Unreadable)},
		"a card's":                       {fields("phone_number", "carte 4970 1000 0000 0154"), "carte 4970 1000 0000 0154", string(phone.Unreadable)},
		"only landlines":                 {fields("phone_number", "01 99 00 12 34", "fixe_telephone", "01 99 00 12 35"), "01 99 00 12 34", string(phone.NotMobile)},
		"rubbish and a landline":         {fields("phone_number", "call me", "telephone", "01 99 00 12 34"), "01 99 00 12 34", string(phone.NotMobile)},
		"rubbish":                        {fields("phone_number", "call me"), "call me", string(phone.Unreadable)},
		"none":                           {fields("email", "a@example.com"), "", string(phone.Missing)},
	} {
		var f form
		if err := json.Unmarshal([]byte(`{"id":"1","field_data":[`+c.fields+`]}`), &f); err != nil {
			t.Fatal(err)
		}
		lead, err := newLead(announcement{leadID: "1"}, f, "FR")
		if err != nil || lead.Phone != c.want || lead.PhoneIssue != c.issue {
			t.Errorf("%s: %q, %q, %v", name, lead.Phone, lead.PhoneIssue, err)
		}
	}
}
