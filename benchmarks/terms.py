"""A hundred key terms that the bundled clips do not contain, in characters that the embedded model can write."""

_TERMS = """\
Parakeet; RTFx; FastConformer; RunPod; Kubernetes; PostgreSQL; Grafana; Terraform; WebAssembly; PyTorch; CUDA; Nvidia;
Deepgram; AssemblyAI; Hugging Face; LibriSpeech; Dagestan; SentencePiece; GitHub Actions; OpenAPI; TypeScript;
Reykjavik; Ljubljana; Ouagadougou; Saskatchewan; Kyoto; Valparaiso; Antananarivo; Tbilisi; Worcestershire; Llanelli;
Massachusetts; Albuquerque; Schenectady; Poughkeepsie; Chattanooga; Tucson; Sault Ste. Marie; Baton Rouge; Des Moines;
Siobhan; Nguyen; Krzysztof; Joaquin; Aoife; Tatiana; Bjorn; Wolfgang; Svetlana; Mehmet; Oluwaseun; Priya Venkatesan;
Zbigniew Brzezinski; Ngozi Okonjo; Dr. Kowalczyk; Saoirse Ronan; Mikhail Bulgakov; Akira Kurosawa; Benoit Mandelbrot;
acetaminophen; ibuprofen; metformin; atorvastatin; omeprazole; tachycardia; myocarditis; Guillain Barre; Alzheimer's;
electroencephalography; immunoglobulin; Staphylococcus aureus; Escherichia coli; hippocampus; echocardiogram; stent;
amortization; EBITDA; collateralized; fiduciary; escrow; arbitrage; Sarbanes Oxley; Form Ten; Basel III; SWIFT; ISIN;
photosynthesis; mitochondria; chromatography; thermodynamics; eigenvalue; Fourier; Bayesian; heteroscedasticity;
Ferrari; Volkswagen; Hyundai; Lufthansa; Schiphol; Bosch
"""

ABSENT_TERMS = tuple(" ".join(term.split()) for term in _TERMS.split(";"))
