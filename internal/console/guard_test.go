package console

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestAPasswordIsNeededOffLoopback(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ addr, password, want string }{
		{"127.0.0.1:9091", "", ""}, {"localhost:9091", "", ""}, {"[::1]:9091", "", ""}, {"127.8.8.8:0", "", ""}, {"", "", ""},
		{":9091", "", "CONSOLE_PASSWORD"}, {"0.0.0.0:9091", "", "CONSOLE_PASSWORD"}, {"[::]:9091", "", "CONSOLE_PASSWORD"},
		{"192.0.2.1:9091", "", "CONSOLE_PASSWORD"}, {"console.example.com:80", "", "CONSOLE_PASSWORD"}, {"localhost.example.com:80", "", "CONSOLE_PASSWORD"},
		{":9091", "sesame", ""}, {"nowhere", "sesame", "CONSOLE_ADDR"}, {"127.0.0.1:http", "", "CONSOLE_ADDR"}, {"127.0.0.1:70000", "", "CONSOLE_ADDR"},
	} {
		err := CheckAddr(tt.addr, tt.password)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.want+":")) {
			t.Errorf("%q with %q: %v, want %q", tt.addr, tt.password, err, tt.want)
		}
	}
}

// visit asks a guarded handler that says "in".
func visit(g *guard, change func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "http://127.0.0.1:9091/api/state", nil)
	r.RemoteAddr = "192.0.2.7:4711"
	change(r)
	w := httptest.NewRecorder()
	g.protect(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("in")) })).ServeHTTP(w, r)
	return w
}

func TestNothingWithoutThePassword(t *testing.T) {
	t.Parallel()
	g := newGuard(":9091", "sesame")
	for name, change := range map[string]func(*http.Request){
		"none":       func(*http.Request) {},
		"wrong":      func(r *http.Request) { r.SetBasicAuth(User, "sesam") },
		"empty":      func(r *http.Request) { r.SetBasicAuth(User, "") },
		"other user": func(r *http.Request) { r.SetBasicAuth("admin", "sesame") },
		"shifted":    func(r *http.Request) { r.SetBasicAuth("operator\x00ses", "ame") },
		"bearer":     func(r *http.Request) { r.Header.Set("Authorization", "Bearer sesame") },
	} {
		if w := visit(g, change); w.Code != http.StatusUnauthorized || w.Body.String() == "in" || w.Header().Get("WWW-Authenticate") == "" {
			t.Errorf("%s: %d %q", name, w.Code, w.Body)
		}
	}
	if w := visit(g, func(r *http.Request) { r.SetBasicAuth(User, "sesame") }); w.Body.String() != "in" {
		t.Errorf("with the password: %d %q", w.Code, w.Body)
	}
}

func TestGuessingIsSlow(t *testing.T) {
	t.Parallel()
	g := newGuard(":9091", "sesame")
	now := time.Now()
	g.now = func() time.Time { return now }
	guess := func(from, password string) int {
		return visit(g, func(r *http.Request) { r.RemoteAddr = from; r.SetBasicAuth(User, password) }).Code
	}
	refused := 0
	for range 100 {
		if guess("192.0.2.7:1", "wrong") == http.StatusTooManyRequests {
			refused++
		}
	}
	if refused != 100-failuresAtOnce {
		t.Errorf("%d of 100 guesses were refused unheard", refused)
	}
	// Neither does a right guess help then, from any port; others are not disturbed.
	if got := guess("192.0.2.7:2", "sesame"); got != http.StatusTooManyRequests {
		t.Errorf("the right password after 100 guesses: %d", got)
	}
	if got := guess("192.0.2.8:1", "sesame"); got != http.StatusOK {
		t.Errorf("somebody else: %d", got)
	}
	now = now.Add(failureEvery)
	if got := guess("192.0.2.7:3", "sesame"); got != http.StatusOK {
		t.Errorf("a little later: %d", got)
	}
	// A crowd of addresses has no more memory than this.
	for i := range 5000 {
		guess("198.51.100."+string(rune('a'+i%26))+strings.Repeat("x", i%191)+":1", "wrong")
	}
	if len(g.failed) > mostAddresses+1 {
		t.Errorf("%d addresses are remembered", len(g.failed))
	}
}

// A page elsewhere can point its own name at this machine (DNS rebinding), or send its
// visitor's browser here.
func TestOnlyByThisMachinesNames(t *testing.T) {
	t.Parallel()
	g := newGuard("127.0.0.1:9091", "")
	for host, want := range map[string]int{
		"127.0.0.1:9091": 200, "localhost:9091": 200, "[::1]:9091": 200, "localhost": 200,
		"evil.example": 403, "evil.example:9091": 403, "127.0.0.1.evil.example:9091": 403, "localhost.evil.example": 403, "192.0.2.1:9091": 403, "": 403,
	} {
		if w := visit(g, func(r *http.Request) { r.Host = host }); w.Code != want {
			t.Errorf("Host %q: %d, want %d", host, w.Code, want)
		}
	}
	for _, site := range []string{"cross-site", "same-site"} {
		if w := visit(g, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", site) }); w.Code != http.StatusForbidden {
			t.Errorf("read from a %s page: %d", site, w.Code)
		}
	}
	post := func(header, value string) int {
		return visit(g, func(r *http.Request) {
			r.Method, r.URL.Path = http.MethodPost, "/panel/do/lead"
			r.Header.Set(header, value)
		}).Code
	}
	for _, h := range [][2]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://evil.example"}, {"Origin", "http://127.0.0.1:8080"}, {"Origin", "null"}} {
		if got := post(h[0], h[1]); got != http.StatusForbidden {
			t.Errorf("POST with %s: %s: %d", h[0], h[1], got)
		}
	}
	for _, h := range [][2]string{{"Sec-Fetch-Site", "same-origin"}, {"Origin", "http://127.0.0.1:9091"}} {
		if got := post(h[0], h[1]); got != http.StatusOK {
			t.Errorf("POST with %s: %s: %d", h[0], h[1], got)
		}
	}
}

// https://cheatsheetseries.owasp.org/cheatsheets/HTTP_Headers_Cheat_Sheet.html
func TestHeadersOfEveryAnswer(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*http.Request){
		"let in":  func(r *http.Request) { r.SetBasicAuth(User, "sesame") },
		"refused": func(*http.Request) {},
	} {
		h := visit(newGuard(":9091", "sesame"), change).Header()
		for k, want := range map[string]string{"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
			"Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-store"} {
			if h.Get(k) != want {
				t.Errorf("%s: %s is %q, want %q", name, k, h.Get(k), want)
			}
		}
		csp := h.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: the policy lacks %s", name, want)
			}
		}
		if strings.Contains(csp, "unsafe") || strings.Contains(csp, "*") {
			t.Errorf("%s: the policy is open: %s", name, csp)
		}
	}
}

func TestMasking(t *testing.T) {
	t.Parallel()
	s, err := newSealer()
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		"webhooks.twilio.optout.33639980102":                  "webhooks.twilio.optout.336****0102",
		"$KV.crm.contact.33639980102":                         "$KV.crm.contact.336****0102",
		"consumers opt-out +33639980102":                      "consumers opt-out +336****0102",
		"rappelez-moi au 06 39 98 01 02 svp":                  "rappelez-moi au ****0102 svp",
		"06.39.98.01.02":                                      "****0102",
		"0033639980102":                                       "336****0102",
		"nats consumer reset WEBHOOKS billing --sequence 421": "nats consumer reset WEBHOOKS billing --sequence 421",
		"lead.1234567890123456":                               "lead.1234567890123456",
		"customer.cus_LeadpipeDemo01":                         "customer.cus_LeadpipeDemo01",
	} {
		got := s.text(in)
		if strings.Contains(strings.ReplaceAll(got.Text, " ", ""), "39980102") || strings.Contains(got.Text, "98 01") {
			t.Errorf("%q shows the number: %q", in, got.Text)
		}
		if in == want && got.Text != want {
			t.Errorf("%q became %q", in, got.Text)
		}
		if got.Text != in {
			if back, err := s.open(got.Ref); err != nil || back != in {
				t.Errorf("%q came back as %q, %v", in, back, err)
			}
		}
	}
	other, err := newSealer()
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{"", "x", "AAAAAAAAAAAAAAAAAAAAAAAA", other.ref("+33639980102")} {
		if text, err := s.open(ref); err == nil {
			t.Errorf("%q opened as %q", ref, text)
		}
	}
}
