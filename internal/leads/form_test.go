package leads

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"leadpipe/contracts"
	"leadpipe/contracts/contractstest"
	"leadpipe/internal/outcome"
)

func TestAnnounced(t *testing.T) {
	t.Parallel()
	at := time.Unix(1795422600, 0).UTC()
	whole := announcement{leadID: "1234567890123456789", pageID: "111", formID: "222", adID: "120000000000000404", createdAt: at}
	for name, c := range map[string]struct {
		data string
		want announcement
	}{
		"ids as strings":       {`{"leadgen_id":"1234567890123456789","page_id":"111","form_id":"222","ad_id":"120000000000000404","adgroup_id":"5","created_time":1795422600}`, whole},
		"ids as numbers":       {`{"leadgen_id":1234567890123456789,"page_id":111,"form_id":222,"ad_id":120000000000000404,"adgroup_id":5,"created_time":1795422600}`, whole},
		"time as a string":     {`{"leadgen_id":1,"created_time":"1795422600"}`, announcement{leadID: "1", createdAt: at}},
		"organic: no ad":       {`{"leadgen_id":"1","ad_id":0}`, announcement{leadID: "1"}},
		"null where it may be": {`{"leadgen_id":"1","ad_id":null,"form_id":"","created_time":null}`, announcement{leadID: "1"}},
		"a time that is none":  {`{"leadgen_id":"1","created_time":"soon"}`, announcement{leadID: "1"}},
	} {
		got, err := announced([]byte(c.data))
		if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for name, data := range map[string]string{
		"nothing": "", "null": "null", "a list": "[]", "a text": `"1"`, "no id": "{}", "id null": `{"leadgen_id":null}`, "id 0": `{"leadgen_id":0}`,
		"a fraction": `{"leadgen_id":1.5}`, "a float": `{"leadgen_id":1e18}`, "below 0": `{"leadgen_id":-1}`, "an object": `{"leadgen_id":{"id":1}}`,
		"a path": `{"leadgen_id":"1/leads"}`, "a wildcard": `{"leadgen_id":"*"}`, "a dot": `{"leadgen_id":"1.2"}`, "true": `{"leadgen_id":true}`,
		"far too long": `{"leadgen_id":"` + strings.Repeat("1", 41) + `"}`, "page id": `{"leadgen_id":1,"page_id":"x y"}`,
	} {
		_, err := announced([]byte(data))
		if o := outcome.Of(err); err == nil || o.Kind != outcome.KindPermanent || o.Reason != outcome.Malformed {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzAnnounced: whatever is taken has ids that may stand in a key and in a URL, and
// the digits that were sent.
func FuzzAnnounced(f *testing.F) {
	for _, seed := range []string{
		`{"leadgen_id":"1234567890123456789","page_id":111,"form_id":222,"created_time":1795422600}`,
		`{"leadgen_id":1234567890123456789,"ad_id":0}`, `{"leadgen_id":1e400}`, `{"LEADGEN_ID":"1","leadgen_id":2}`, `null`, `{"leadgen_id":"\ud800"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := announced(data)
		if err != nil {
			if outcome.Of(err).Kind != outcome.KindPermanent {
				t.Fatalf("not permanent: %v", err)
			}
			return
		}
		for _, id := range []string{a.leadID, a.pageID, a.formID, a.adID} {
			if id != "" && (!contracts.ValidID(id) || strings.Trim(id, "0123456789") != "" || !strings.Contains(string(data), id) && !strings.Contains(string(data), `\u`)) {
				t.Fatalf("an id of %q", data)
			}
		}
		if a.leadID == "" || !a.createdAt.IsZero() && a.createdAt.Year() > 9999 {
			t.Fatalf("%+v", a)
		}
	})
}

func fields(nameValues ...string) string {
	var b strings.Builder
	for i := 0; i < len(nameValues); i += 2 {
		name, err1 := json.Marshal(nameValues[i])
		value, err2 := json.Marshal(nameValues[i+1])
		if err1 != nil || err2 != nil {
			panic("strings always encode")
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`{"name":` + string(name) + `,"values":[` + string(value) + `]}`)
	}
	return b.String()
}

func TestFactsOfAForm(t *testing.T) {
	t.Parallel()
	type facts struct{ name, first, email, phone, issue string }
	const number = "+33639980102"
	for name, c := range map[string]struct {
		fields string
		want   facts
	}{
		"Meta's own fields": {fields("full_name", "Zoé Martin", "email", "zoe@example.com", "phone_number", number), facts{"Zoé Martin", "Zoé", "zoe@example.com", number, ""}},
		"name in two parts": {fields("first_name", "Jean-Paul", "last_name", "Le Goff"), facts{"Jean-Paul Le Goff", "Jean-Paul", "", "", "missing"}},
		"all three names":   {fields("last_name", "Martin", "first_name", "Zoé", "full_name", "Z. Martin"), facts{"Z. Martin", "Zoé", "", "", "missing"}},
		"last name only":    {fields("last_name", "Martin"), facts{"Martin", "", "", "", "missing"}},
		"first name only":   {fields("first_name", "Zoé"), facts{"Zoé", "Zoé", "", "", "missing"}},
		"names of one's own, in French": {fields("Prénom", "Zoé", "NOM DE FAMILLE :", "Martin", "Adresse e-mail", "zoe@example.com", "Numéro de téléphone ?", "06 39 98 01 02"),
			facts{"Zoé Martin", "Zoé", "zoe@example.com", number, ""}},
		"accents in two code points":       {fields("Pre\u0301nom", "Zoé", "te\u0301le\u0301phone", number), facts{"Zoé", "Zoé", "", number, ""}},
		"Meta's name before others":        {fields("téléphone", "01 99 00 01 02", "phone_number", number), facts{"", "", "", number, ""}},
		"an empty field before a full one": {fields("phone_number", " ", "telephone", number), facts{"", "", "", number, ""}},
		"a question that mentions a phone": {fields("quel_est_le_nom_de_votre_entreprise_?", "ACME", "votre marque de téléphone", "x", "Сколько вам лет?", "30"), facts{"", "", "", "", "missing"}},
		"p: as in exports":                 {fields("phone_number", "p:+33639980102"), facts{"", "", "", number, ""}},
		"possible, not in the tables":      {fields("phone_number", "07 00 12 34 56"), facts{"", "", "", "+33700123456", ""}},
		"marks of direction around it":     {fields("phone_number", "\u202a+33 6 39 98 01 02\u202c"), facts{"", "", "", number, ""}},
		"a landline stays as typed":        {fields("phone_number", "01 99 00 01 02"), facts{"", "", "", "01 99 00 01 02", "not_mobile"}},
		"junk stays as typed":              {fields("phone_number", "appelez-moi !"), facts{"", "", "", "appelez-moi !", "unreadable"}},
		"a short code is no number":        {fields("phone_number", "36123"), facts{"", "", "", "36123", "unreadable"}},
		"Meta's testing tool": {fields("full_name", "<test lead: dummy data for full_name>", "email", "test@meta.com", "phone_number", "<test lead: dummy data for phone_number>"),
			facts{"<test lead: dummy data for full_name>", "", "test@meta.com", "<test lead: dummy data for phone_number>", "unreadable"}},
		"nothing": {"", facts{"", "", "", "", "missing"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lead := mustLead(t, `{"id":"1","created_time":"2026-11-23T09:30:00+0100","field_data":[`+c.fields+`]}`)
			if got := (facts{lead.Name, lead.FirstName, lead.Email, lead.Phone, lead.PhoneIssue}); got != c.want {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

// mustLead maps an answer of Graph to lead 1, announced with page 111, form 222, ad 333
// and a creation on 23 November 2026, 08:00 UTC.
func mustLead(t *testing.T, answer string) contracts.Lead {
	t.Helper()
	var f form
	if err := json.Unmarshal([]byte(answer), &f); err != nil {
		t.Fatal(err)
	}
	lead, err := newLead(announcement{leadID: "1", pageID: "111", formID: "222", adID: "333", createdAt: time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)}, f, "FR")
	if err != nil {
		t.Fatal(err)
	}
	lead.Settle()
	doc, err := json.Marshal(lead)
	if err != nil {
		t.Fatal(err)
	}
	contractstest.Record(t, contracts.KeyLead("1"), doc)
	return lead
}

func TestWholeLead(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", 50_000)
	got := mustLead(t, `{"id":"1","created_time":"2026-11-23T09:30:00+0100","form_id":223,"ad_id":"334","field_data":[`+
		fields("full_name", "=HYPERLINK(\"http://example.com\")", "הערות", "שלום\nعالم 🛠️👩‍🔧", "long", long)+
		`,{"name":"services_?","values":["a","b"]},{"name":"rien","values":[]},{"name":"null","values":null},{"name":"absent"},`+
		`{"name":"services_?","values":["c"]},{"name":"typed","values":[42,true,null]}],`+
		`"custom_disclaimer_responses":[{"checkbox_key":"sms","is_checked":"1"},{"checkbox_key":"mail","is_checked":""},{"checkbox_key":"call","is_checked":true}]}`)
	want := contracts.Lead{
		ID: "1", CreatedAt: time.Date(2026, 11, 23, 8, 30, 0, 0, time.UTC), PageID: "111", FormID: "223", AdID: "334",
		Name: `=HYPERLINK("http://example.com")`, PhoneIssue: "missing", Status: contracts.LeadNew,
		Answers: map[string][]string{
			"full_name": {`=HYPERLINK("http://example.com")`}, "הערות": {"שלום\nعالم 🛠️👩‍🔧"}, "long": {long},
			"services_?": {"a", "b", "c"}, "rien": {}, "null": {}, "absent": {}, "typed": {"42", "true", ""},
		},
		Disclaimers: map[string]bool{"sms": true, "mail": false, "call": true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestCreationTime(t *testing.T) {
	t.Parallel()
	announcedAt := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	for written, want := range map[string]time.Time{
		`"2015-02-28T08:49:14+0000"`:  time.Date(2015, 2, 28, 8, 49, 14, 0, time.UTC),
		`"2026-11-23T09:30:00+0100"`:  time.Date(2026, 11, 23, 8, 30, 0, 0, time.UTC),
		`"2026-11-23T08:30:00Z"`:      time.Date(2026, 11, 23, 8, 30, 0, 0, time.UTC),
		`"2026-11-23T09:30:00+01:00"`: time.Date(2026, 11, 23, 8, 30, 0, 0, time.UTC),
		`1795422600`:                  time.Unix(1795422600, 0).UTC(),
		`"yesterday"`:                 announcedAt,
		`null`:                        announcedAt,
		`99999999999999`:              announcedAt,
	} {
		if got := mustLead(t, `{"id":"1","created_time":`+written+`,"field_data":[]}`).CreatedAt; got != want {
			t.Errorf("%s: %v, want %v", written, got, want)
		}
	}
}

func TestAsName(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"Zoé": "Zoé", " Jean-Paul ": "Jean-Paul", "O’Neil": "O’Neil", "d'Artagnan": "d'Artagnan", "J. P.": "J. P.", "Jr.": "Jr.", "محمد": "محمد", "Zoe\u0301": "Zoe\u0301", "Marie\nAnne": "Marie Anne",
		"": "", "<test": "", "http://evil.com": "", "evil.com": "", "www.evil.com gagne": "", "+33639980102": "", "Zoé2": "", "🛠": "", "-": "", "\u0301a": "",
		"Vous avez gagné un bon": "", strings.Repeat("a", 31): "", "{{.Phone}}": "", "Anna\u202eannA": "",
	} {
		if got := asName(in); got != want {
			t.Errorf("%q gives %q, want %q", in, got, want)
		}
	}
}

// gsm7 are the characters that an SMS can hold 160 of (GSM 03.38, without its
// extension table).
const gsm7 = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"

func TestDefaultWelcomeIsOneSegment(t *testing.T) {
	t.Parallel()
	tmpl, err := ParseWelcome("")
	if err != nil {
		t.Fatal(err)
	}
	for first, start := range map[string]string{"": "Bonjour, merci", "Camille": "Bonjour Camille, merci", strings.Repeat("a", longestName): "Bonjour aaa"} {
		body, err := tmpl.Render(Greeting{FirstName: first})
		if err != nil || !strings.HasPrefix(body, start) || !strings.Contains(body, "STOP") || len([]rune(body)) > 160 {
			t.Errorf("%q, %v", body, err)
		}
		for _, r := range body {
			if !strings.ContainsRune(gsm7, r) {
				t.Errorf("%q is not of the GSM alphabet", r)
			}
		}
	}
	for _, bad := range []string{"{{.Prenom}}", "{{.FirstName}}", "{{if}}"} { // the second is empty without a name
		if _, err := ParseWelcome(bad); err == nil || !strings.HasPrefix(err.Error(), "SMS_WELCOME_TEXT: ") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
