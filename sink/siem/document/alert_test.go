package document

import "testing"

func TestIndicator(t *testing.T) {
	for text, want := range map[string]IndicatorKind{
		"": NoIndicator, "203.0.113.7": IPv4, "2001:db8::7": IPv6, "203.0.113.0/24": Prefix, "2001:db8::/32": Prefix, "evil.example": Domain,
		"e7d705a3286e19ea42f587b344ee6865": Fingerprint, "t13d1516h2_8daaf6152771_b186095e22b6": Fingerprint, "g7d705a3286e19ea42f587b344ee686x": Domain,
		"t13d1516h2.8daaf6152771.example.test": Domain,
	} {
		if got := Indicator(text); got != want {
			t.Errorf("Indicator(%q) is %d, want %d", text, got, want)
		}
	}
}

func TestConfidence(t *testing.T) {
	for percent, want := range map[uint8]Level{0: Unknown, 1: Low, 29: Low, 30: Medium, 69: Medium, 70: High, 100: High, 255: High} {
		if got := Confidence(percent); got != want {
			t.Errorf("Confidence(%d) is %d, want %d", percent, got, want)
		}
	}
}
